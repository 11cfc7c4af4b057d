//! A real mail server (aiosmtpd, in Python) and certificates for it (openssl).

use super::tool;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Debian's Python, which finds Debian's package `python3-aiosmtpd`.
const PYTHON: &str = "/usr/bin/python3";

/// Whether mail can be tested here.
pub fn is_here() -> bool {
    let probe = Command::new(PYTHON).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    tool::missing(probe.is_ok_and(|status| status.success()), "python3-aiosmtpd is not installed")
        && tool::has("openssl")
}

/// An authority and a server's certificate signed by it, as files in a directory.
pub struct Certificates {
    /// The directory.
    pub dir: tempfile::TempDir,
}

impl Certificates {
    /// New ones, for 127.0.0.1.
    pub fn new() -> Certificates {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let openssl = |before: &[&str], after: &[&str]| {
            tool::run("openssl", &[before, after].concat());
        };
        openssl(
            &["req", "-x509", "-days", "2", "-subj", "/CN=test authority"],
            &[&key[..], &["-keyout", &at("ca.key"), "-out", &at("ca.pem")]].concat(),
        );
        openssl(
            &["req", "-subj", "/CN=test server"],
            &[&key[..], &["-keyout", &at("server.key"), "-out", &at("server.csr")]].concat(),
        );
        openssl(
            &["x509", "-req", "-days", "2", "-in", &at("server.csr"), "-CA", &at("ca.pem")],
            &["-CAkey", &at("ca.key"), "-CAcreateserial", "-extfile", &at("ext")]
                .into_iter()
                .chain(["-out", &at("server.pem")])
                .collect::<Vec<_>>(),
        );
        Certificates { dir }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

/// A running server; ends when it is dropped.
pub struct Server {
    process: Child,
    out: tempfile::TempDir,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Server {
    /// Starts one; port 0 for any. For the modes see `smtp.py`.
    pub fn start(port: u16, mode: &str, certificates: Option<&Certificates>) -> Server {
        let out = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/smtp.py");
        let mut command = Command::new(PYTHON);
        command.arg(script).arg(port.to_string()).arg(mode).arg(out.path());
        if let Some(certificates) = certificates {
            let dir = certificates.dir.path();
            command.args([dir.join("server.pem"), dir.join("server.key")]);
        }
        let mut process = command
            .stdout(Stdio::piped())
            // What it says about clients that break off is in the way of the test's own words.
            .stderr(std::fs::File::create(out.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server says where it listens");
        Server { process, out, port }
    }

    /// A port on which nobody listens: that of a server that has ended.
    pub fn nobody() -> u16 {
        Server::start(0, "plain", None).port
    }

    /// The mails it took, in order.
    pub fn mails(&self) -> Vec<Value> {
        let entries =
            std::fs::read_dir(self.out.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        paths.sort();
        paths
            .iter()
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect()
    }

    /// The MAIL and AUTH commands it got.
    pub fn commands(&self) -> String {
        std::fs::read_to_string(self.out.path().join("commands")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
