"""Runs a peer of Roofline's: one JSON object a line on stdin, one answer a line on stdout.

Only calls into the peer are timed; what this loop does around them is not. Logits are computed for the last token of
a call only, as llama-bench does.
"""
import json
import os
import sys
import time

# Whatever the peer prints goes to stderr; answers have a stream of their own.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class LlamaCpp:
    """llama.cpp through the C interface that llama_cpp binds."""

    def __init__(self):
        import llama_cpp
        self.lib = llama_cpp
        self.version = "llama-cpp-python " + llama_cpp.__version__

    def load(self, model, threads, context, kv_type):
        lib = self.lib
        self.silent = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self.silent, None)
        lib.llama_backend_init()
        options = lib.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(model.encode(), options)
        if not self.model:
            raise RuntimeError("llama.cpp cannot load this file")
        options = lib.llama_context_default_params()
        options.n_ctx = context
        options.n_threads = options.n_threads_batch = threads
        options.type_k = options.type_v = {"f32": 0, "f16": 1, "bf16": 30}[kv_type]
        self.context = lib.llama_init_from_model(self.model, options)
        if not self.context:
            raise RuntimeError("llama.cpp cannot make a context of %d tokens" % context)
        self.batch = options.n_batch
        self.depth = None
        self.words = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        system = lib.llama_print_system_info().decode().strip()
        return "n_batch %d, n_ubatch %d, flash attention %s, no GPU layers; %s" % (
            options.n_batch, options.n_ubatch, {-1: "auto", 0: "off", 1: "on"}.get(options.flash_attn_type), system)

    def calls(self, ids):
        """Batches of ids and the arrays that they point into."""
        pieces = [ids[at:at + self.batch] for at in range(0, len(ids), self.batch)]
        arrays = [(self.lib.llama_token * len(piece))(*piece) for piece in pieces]
        return [(self.lib.llama_batch_get_one(array, len(array)), array) for array in arrays]

    def feed(self, calls):
        for batch, _ in calls:
            code = self.lib.llama_decode(self.context, batch)
            if code:
                raise RuntimeError("llama_decode returned %d" % code)
        self.lib.llama_synchronize(self.context)

    def best(self):
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        return max(range(self.words), key=logits.__getitem__)

    def run(self, depth, prompt, decode):
        memory = self.lib.llama_get_memory(self.context)
        if self.depth == depth:
            self.lib.llama_memory_seq_rm(memory, 0, len(depth), -1)
        else:
            self.lib.llama_memory_clear(memory, True)
            self.feed(self.calls(depth))
            self.depth = depth
        calls, steps = self.calls(prompt), [self.calls([id]) for id in decode]
        began = time.perf_counter()
        self.feed(calls)
        prefill = time.perf_counter() - began
        best, times = self.best(), []
        for step in steps:
            began = time.perf_counter()
            self.feed(step)
            times.append(time.perf_counter() - began)
        return prefill, times, best


class Transformers:
    """Hugging Face transformers on torch."""

    def __init__(self):
        import torch
        import transformers
        self.torch, self.lib = torch, transformers
        self.version = "transformers %s, torch %s" % (transformers.__version__, torch.__version__)

    def load(self, model, threads, context, kv_type):
        self.torch.set_num_threads(threads)
        name = "dtype" if int(self.lib.__version__.split(".")[0]) >= 5 else "torch_dtype"
        options = {name: "auto", "local_files_only": True}
        self.model = self.lib.AutoModelForCausalLM.from_pretrained(model, **options).eval()
        self.depth = None
        attention = getattr(self.model.config, "_attn_implementation", "unknown")
        return "weights, arithmetic and cache in %s, attention %s, eager, CPU" % (self.model.dtype, attention)

    def feed(self, ids):
        return self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits

    def run(self, depth, prompt, decode):
        tensor = lambda ids: self.torch.tensor([ids])
        with self.torch.inference_mode():
            if self.depth == depth and len(depth) > 0:
                # A negative number removes so many; what a positive one means changed between versions.
                self.cache.crop(-self.added)
            else:
                self.cache = self.lib.DynamicCache()
                if depth:
                    self.feed(tensor(depth))
                self.depth = depth
            self.added = len(prompt) + len(decode)
            prompt, steps = tensor(prompt), [tensor([id]) for id in decode]
            began = time.perf_counter()
            logits = self.feed(prompt)
            prefill = time.perf_counter() - began
            best, times = int(logits[0, -1].argmax()), []
            for step in steps:
                began = time.perf_counter()
                self.feed(step)
                times.append(time.perf_counter() - began)
        return prefill, times, best


PEERS = {"llama.cpp": LlamaCpp, "transformers": Transformers}
peer = None
for line in sys.stdin:
    asked = json.loads(line)
    try:
        if asked["do"] == "hello":
            peer = PEERS[asked["peer"]]()
            answer = {"version": peer.version}
        elif asked["do"] == "load":
            answer = {"details": peer.load(asked["model"], asked["threads"], asked["context"], asked["kv_type"])}
        else:
            prefill, steps, best = peer.run(asked["depth"], asked["prompt"], asked["decode"])
            answer = {"prefill_s": prefill, "steps_s": steps, "best": best}
    except ImportError as error:
        answer = {"missing": str(error)}
    except Exception as error:
        answer = {"error": "%s: %s" % (type(error).__name__, error)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
