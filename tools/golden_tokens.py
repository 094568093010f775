#!/usr/bin/env python3
"""Token ids of tricky texts, by the Python `tokenizers` package: the goldens of crates/model/tests/tokenizer_hf.rs.

    pip install tokenizers==0.23.3
    python tools/golden_tokens.py ../shared/data crates/model/tests/golden/tokens.json

Texts are shared by all tokenizers. For each tokenizer and text: `ids` (control tokens in the text read as such,
nothing added around it), `literal` (control tokens in the text taken as text) where it differs, and `decoded` (all
tokens kept) where that is not the text itself (tokenizers that normalise to NFC).
"""

import json
import pathlib
import sys

import tokenizers

FILES = {
    "gpt-neox-20b": "tokenizers/gpt-neox-20b.json",
    "olmo-dolma-v1_5": "tokenizers/olmo-dolma-v1_5.json",
    "molmoe-1b": "configs/molmoe-1b/tokenizer/tokenizer.json",
    "demo": "models/demo/tokenizer.json",
}

TEXTS = [
    "",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    " \n \n",
    "\u00a0\u00a0x",
    "\u3000全角",
    "Hello",
    " Hello",
    "Hello world",
    "Hello, world!",
    " Hello,  world !  ",
    "hello\nworld\r\nagain\n",
    "trailing space ",
    "trailing spaces   ",
    "a" * 300,
    " " * 100 + "x",
    "x" + "\n" * 40,
    "0",
    "1234567890",
    "3.14159e-10 + 1,000,000 = ½ ² Ⅷ ٣",
    "I'm you're he'll they'd we've it's don't",
    "I'M YOU'RE HE'LL THEY'D WE'VE IT'S DON'T",
    "'''s 't '' ''re",
    "snake_case camelCase kebab-case SCREAMING_CASE",
    "def f(x):\n    return x ** 2  # square\n\n\tif x: pass",
    '{"key": [1, 2.5, null], "nested": {"a": "b\\n"}}',
    "<html><body class='x'>&amp;</body></html>",
    "https://example.org/path?q=1&r=%20#frag",
    "C:\\Users\\name\\file.txt",
    "!!!???...---___===",
    "«Bonjour», dit-elle — “enfin”…",
    "Füße, naïve café, Ærøskøbing",
    "e\u0301 decomposed, \u00e9 composed",
    "A\u030a ngstro\u0308m \u212b",
    "Привет, мир! Ещё раз.",
    "Γειά σου Κόσμε",
    "שלום עולם",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "កាន់តែពិសេសអាច",
    "你好，世界！我想在这里工作1314天～",
    "こんにちは世界。カタカナ",
    "안녕하세요 세계",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "😀😶\u200d🌫\ufe0f👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈🇩🇪",
    "🚀 (normal) 🦙🦙 ✅",
    "\ufeffBOM and \u200bzero\u200dwidth\u2060",
    "\u202eright to left\u202c",
    "nul\x00 bell\x07 esc\x1b[0m del\x7f",
    "\u0085\u2028\u2029",
    "\ufffd replacement \ufffe \U0010ffff",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛",
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|> c",
    "<|endoftext|",
    "<|padding|> <im_start><im_end> <|image|>",
    "|||IP_ADDRESS||| |||EMAIL_ADDRESS||| |||PHONE_NUMBER|||",
    "zalgo: Z\u0351\u036b\u0343a\u0328\u0321l\u0334g\u0322o\u0321",
]


def cases(tokenizer: tokenizers.Tokenizer) -> list[dict]:
    out = []
    for text in TEXTS:
        tokenizer.encode_special_tokens = False
        case = {"ids": tokenizer.encode(text, add_special_tokens=False).ids}
        tokenizer.encode_special_tokens = True
        literal = tokenizer.encode(text, add_special_tokens=False).ids
        if literal != case["ids"]:
            case["literal"] = literal
        decoded = tokenizer.decode(case["ids"], skip_special_tokens=False)
        if decoded != text:
            case["decoded"] = decoded
        out.append(case)
    return out


def main() -> None:
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    result = {"made_with": f"tokenizers {tokenizers.__version__}", "texts": TEXTS, "tokenizers": {}}
    for name, path in FILES.items():
        tokenizer = tokenizers.Tokenizer.from_file(str(data / path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        result["tokenizers"][name] = {"path": path, "cases": cases(tokenizer)}
    out.parent.mkdir(parents=True, exist_ok=True)
    body = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
    out.write_text(body.replace('{"ids"', '\n{"ids"') + "\n")


if __name__ == "__main__":
    main()
