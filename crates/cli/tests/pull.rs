//! `roofline pull`: its plain errors, and with the feature `hub` a download from a server of our own.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use common::complaint;

#[test]
fn what_is_no_repository_is_refused() {
    for bad in ["gpt2", "../secrets", "https://huggingface.co/a/b"] {
        assert!(complaint(&["pull", bad]).contains("(write ORG/NAME"), "{bad}");
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_program_without_downloads_says_how_to_get_one() {
    let said = complaint(&["pull", "a/b"]);
    assert!(said.contains("--features hub") && said.contains("huggingface.co/a/b"), "{said}");
}

#[cfg(feature = "hub")]
mod hub {
    use super::common::{roofline, scratch};
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::Output;

    /// Pulls with a cache of its own.
    fn pull(endpoint: &str, cache: &Path, arguments: &[&str]) -> Output {
        let arguments = [&["pull"], arguments].concat();
        roofline(&arguments).env("HF_ENDPOINT", endpoint).env("HF_HOME", cache).output().unwrap()
    }

    fn stderr(output: &Output) -> String {
        String::from_utf8(output.stderr.clone()).unwrap()
    }

    #[test]
    fn a_server_that_is_not_there_is_a_plain_error() {
        let output = pull("http://127.0.0.1:9", &scratch("hub-none"), &["a/b"]);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(
            said.starts_with("roofline: cannot load its list of files of a/b: ") && said.lines().count() == 1,
            "{said}"
        );
    }

    /// As much of a hub as a download needs: a list of files, and files in ranges.
    fn serve(files: &'static [(&'static str, &'static str)]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), files)));
        endpoint
    }

    fn answer(mut stream: TcpStream, files: &[(&str, &str)]) {
        let lines: Vec<String> = BufReader::new(&stream)
            .lines()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let path = lines[0].split_whitespace().nth(1).unwrap();
        let range = lines
            .iter()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(String::from));
        let found = files.iter().find(|(name, _)| path.ends_with(&format!("/resolve/main/{name}")));
        let (status, extra, body) = match (found, range) {
            (Some((name, content)), Some(range)) => {
                let (first, last) = range.split_once('-').unwrap();
                let first: usize = first.parse().unwrap();
                let end = last.parse::<usize>().map_or(content.len(), |last| last + 1);
                let extra = format!(
                    "ETag: \"{name}\"\r\nX-Repo-Commit: c0ffee\r\nContent-Range: bytes {first}-{}/{}\r\n",
                    end - 1,
                    content.len()
                );
                ("206 Partial Content", extra, content[first..end].to_string())
            }
            _ if path.contains("/api/models/") => {
                let names: Vec<String> =
                    files.iter().map(|(name, _)| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
                (
                    "200 OK",
                    String::new(),
                    format!(r#"{{"sha": "c0ffee", "siblings": [{}]}}"#, names.join(",")),
                )
            }
            _ => ("404 Not Found", String::new(), String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
    }

    #[test]
    fn a_folder_is_loaded_and_a_broken_download_goes_on() {
        let cache = scratch("hub-folder");
        let _ = std::fs::remove_dir_all(&cache);
        let endpoint =
            serve(&[("config.json", "{}"), ("README.md", "x"), ("model.safetensors", "0123456789")]);
        let blobs = cache.join("hub/models--a--b/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        // As hf-hub calls a download in progress: the hash with another extension. Letters in place of the first digits
        // show that they were not loaded again.
        std::fs::write(blobs.join("model.part"), "abcd").unwrap();
        let output = pull(&endpoint, &cache, &["a/b"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let folder = String::from_utf8(output.stdout).unwrap();
        let folder = Path::new(folder.trim());
        assert_eq!(std::fs::read_to_string(folder.join("model.safetensors")).unwrap(), "abcd456789");
        assert_eq!(std::fs::read_to_string(folder.join("config.json")).unwrap(), "{}");
        assert!(!folder.join("README.md").exists());
    }

    #[test]
    fn of_several_gguf_files_one_is_chosen_by_name() {
        let cache = scratch("hub-gguf");
        let endpoint = serve(&[("a-q4.gguf", "four"), ("a-q8.gguf", "eight")]);
        let output = pull(&endpoint, &cache, &["a/b"]);
        assert!(
            stderr(&output).contains("choose one with --file: a-q4.gguf, a-q8.gguf"),
            "{}",
            stderr(&output)
        );
        let output = pull(&endpoint, &cache, &["a/b", "--file", "a-q8.gguf"]);
        let path = String::from_utf8(output.stdout).unwrap();
        assert_eq!(std::fs::read_to_string(path.trim()).unwrap(), "eight");
    }

    #[test]
    fn a_name_that_leaves_its_folder_loads_nothing() {
        let cache = scratch("hub-evil");
        let endpoint = serve(&[("config.json", "{}"), ("../model.safetensors", "x")]);
        let output = pull(&endpoint, &cache, &["a/b"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("nothing was loaded"), "{}", stderr(&output));
    }
}
