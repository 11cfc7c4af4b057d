//! Records over TLS: RFC 5425. The server has to prove that it is the one that was configured; there
//! is no way around that.

use super::network::{self, PATIENCE, TIMEOUT};
use super::{Connection, Told};
use crate::config::sink::Host;
use crate::model::name;
use crate::sys::stat::monotonic;
use crate::sys::{open, socket};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Largest file with certificates.
const CERTIFICATES_LIMIT: u64 = 4 << 20;

/// How long is waited after a handshake for what a server says about it. In TLS 1.3 a client is done
/// before the server has judged it; a server that lets it in sends tickets at once.
const VERDICT: Duration = Duration::from_millis(500);

/// How long is waited when a connection is closed until the receiver has read everything; a busy one
/// takes its time, and what it has not read would be lost.
const FAREWELL: Duration = Duration::from_secs(5);

/// A stream over TLS.
pub(super) struct Tls {
    stream: TcpStream,
    session: ClientConnection,
    /// Bytes on the wire: more than there is in the records.
    written: u64,
}

/// What has arrived on a socket, without waiting.
struct Now<'a>(BorrowedFd<'a>);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket::read_now(self.0, buffer)
    }
}

impl Tls {
    /// Connects, and sees that the server is the right one.
    ///
    /// # Errors
    /// Those of connecting, and what is wrong with the server's certificate or with `ca_file`.
    pub(super) fn connect(host: &Host, ca_file: Option<&Path>) -> io::Result<Tls> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(authorities(ca_file)?)
            .with_no_client_auth();
        let server = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::new(config), server).map_err(io::Error::other)?;
        let stream = network::stream(host)?;
        let mut connection = Tls { stream, session, written: 0 };
        connection.shake_hands()?;
        Ok(connection)
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        let until = monotonic() + TIMEOUT;
        while self.session.is_handshaking() {
            if monotonic() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.flush()?;
            if self.session.is_handshaking() && self.session.wants_read() {
                if self.session.read_tls(&mut &self.stream)? == 0 {
                    return Err(network::closed());
                }
                self.process()?;
            }
        }
        self.flush()?;
        if self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            self.stream.set_read_timeout(Some(VERDICT))?;
            let read = self.session.read_tls(&mut &self.stream);
            self.stream.set_read_timeout(Some(TIMEOUT))?;
            match read {
                Ok(0) => return Err(network::closed()),
                Ok(_) => self.process()?,
                // One that sends no tickets says nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes sense of what was read; what a receiver says is passed over.
    fn process(&mut self) -> io::Result<()> {
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // Tells the server why, if it can still be told.
                let _ = self.flush();
                return Err(io::Error::other(error));
            }
        };
        let mut said = vec![0; state.plaintext_bytes_to_read()];
        // The session holds as many bytes, so that this neither waits nor fails.
        let _ = self.session.reader().read_exact(&mut said);
        if state.peer_has_closed() { Err(network::closed()) } else { Ok(()) }
    }

    /// Writes what the session has ready, before a deadline.
    fn flush(&mut self) -> io::Result<()> {
        let mut wire = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut wire)?;
        }
        network::write_all(&self.stream, &wire)?;
        self.written += u64::try_from(wire.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

impl Connection for Tls {
    fn write(&mut self, records: &[String]) -> (usize, io::Result<()>) {
        let bytes = network::counted(records);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            // A session holds so much at a time.
            let written = self.session.writer().write(rest).and_then(|length| {
                self.flush()?;
                Ok(length)
            });
            match written {
                Ok(0) => return (0, Err(network::closed())),
                Ok(length) => rest = &rest[length..],
                Err(error) => return (0, Err(error)),
            }
        }
        (records.len(), Ok(()))
    }

    fn look(&mut self) -> io::Result<()> {
        // Somebody who talks without end does not keep us here.
        for _ in 0..64 {
            match self.session.read_tls(&mut Now(self.stream.as_fd())) {
                Ok(0) => return Err(network::closed()),
                Ok(_) => self.process()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn unread(&self) -> io::Result<u64> {
        socket::unread(self.stream.as_fd())
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn outlives(&self, _: &io::Error) -> bool {
        false
    }
}

impl Drop for Tls {
    /// Says goodbye as RFC 5425, section 4.4 has it, and waits until the receiver has too: a socket
    /// that is closed with unread data in it would take back what the receiver has not read.
    fn drop(&mut self) {
        self.session.send_close_notify();
        // One that reads nothing is not waited for.
        let bounded = self.stream.set_write_timeout(Some(FAREWELL));
        if bounded.is_err()
            || self.flush().is_err()
            || self.stream.shutdown(Shutdown::Write).is_err()
        {
            return;
        }
        let until = monotonic() + FAREWELL;
        let mut buffer = [0; 4096];
        while let Some(left) = until.checked_duration_since(monotonic()).filter(|l| !l.is_zero()) {
            let waited = self.stream.set_read_timeout(Some(left));
            match waited.and_then(|()| (&self.stream).read(&mut buffer)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    }
}

/// The authorities that are believed: those of a file, else the system's.
fn authorities(ca_file: Option<&Path>) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca_file {
        let wrong = |cause: &str| {
            let next = "name a file with certificates in PEM as ca-file";
            io::Error::from(Told(format!("{}: {cause}; {next}", name::show(path))))
        };
        let pem = read(path).map_err(|error| wrong(&open::plain_cause(&error)))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.ok().map(|certificate| store.add(certificate));
            if !matches!(added, Some(Ok(()))) {
                return Err(wrong("holds a certificate that is not valid"));
            }
        }
        if store.is_empty() {
            return Err(wrong("holds no certificate"));
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let told = "this system knows no authorities for certificates; install ca-certificates, or name the one that signs the server's certificate as ca-file";
            return Err(Told(told.to_owned()).into());
        }
    }
    Ok(store)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::from(open::given_file(path)?);
    file.take(CERTIFICATES_LIMIT + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > CERTIFICATES_LIMIT) {
        return Err(io::Error::other(format!("larger than {CERTIFICATES_LIMIT} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Syslog;
    use super::super::record::Form;
    use super::super::tests::counted;
    use super::*;
    use crate::alert::way::{Purpose, Sent, Settled, Way as _};
    use crate::config::sink::{Facility, Format, Target};
    use crate::model::event::{Event, Kind};
    use crate::model::severity::Severity;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::net::TcpListener;
    use std::process::Command;

    /// An authority, and a server's certificate for 127.0.0.1 by it; `None` without openssl.
    fn certificates() -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for arguments in [
            format!("req -x509 -days 2 -subj /CN=authority {key} -keyout ca.key -out ca.pem"),
            format!("req -subj /CN=server {key} -keyout key.pem -out csr"),
            "x509 -req -days 2 -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out cert.pem".to_owned(),
        ] {
            let ran = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(dir.path())
                .output();
            match ran {
                Ok(output) => assert!(output.status.success(), "{output:?}"),
                Err(_) => {
                    println!("skipped: openssl is not installed");
                    return None;
                }
            }
        }
        Some(dir)
    }

    type Stream = StreamOwned<ServerConnection, TcpStream>;

    /// A server, for whoever has a certificate of the authority where that is asked for.
    fn server(dir: &Path, asks_for_certificate: bool) -> (Arc<ServerConfig>, TcpListener) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_for_certificate {
            let roots = Arc::new(authorities(Some(&dir.join("ca.pem"))).unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
        let config = builder.with_single_cert(vec![certificate], key).unwrap();
        (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn accept(config: &Arc<ServerConfig>, listener: &TcpListener) -> Stream {
        let session = ServerConnection::new(Arc::clone(config)).unwrap();
        StreamOwned::new(session, listener.accept().unwrap().0)
    }

    fn way(host: &str, listener: &TcpListener, ca_file: &Path) -> Syslog {
        let port = listener.local_addr().unwrap().port();
        let target = Target::Tls(Host { name: host.to_owned(), port });
        let form = Form::new(Purpose::Events, "here", &target, Format::Rfc5424, Facility::AUTHPRIV);
        Syslog::new(target, Some(ca_file.to_owned()), form)
    }

    fn event(seq: u64) -> Arc<Event> {
        let event = Event::new(Kind::Changed, Severity::High, "x".repeat(5000));
        Arc::new(Event { seq, ..event })
    }

    #[test]
    fn records_arrive_and_a_peer_that_goes_is_noticed() {
        let Some(dir) = certificates() else { return };
        let (config, listener) = server(dir.path(), false);
        let mut way = way("127.0.0.1", &listener, &dir.path().join("ca.pem"));
        let events: Vec<_> = (1..=40).map(event).collect();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut stream = accept(&config, &listener);
                let records = counted(&mut stream, 40);
                assert!(records.iter().all(|record| record.ends_with("xxx")));
                stream
            });
            assert_eq!(way.send(&events), Sent::taken(40));
            let stream = serving.join().unwrap();
            assert_eq!(way.settle(), Settled::Pending { before: 1 });
            drop(stream);
        });
        let until = monotonic() + Duration::from_secs(60);
        let mut settled = way.settle();
        while matches!(settled, Settled::Pending { .. }) && monotonic() < until {
            settled = way.settle();
        }
        assert_eq!(settled, Settled::Lost { from: 1 });
        // And one that says goodbye.
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let mut stream = accept(&config, &listener);
                counted(&mut stream, 1);
                stream.conn.send_close_notify();
                stream.flush().unwrap();
                stream
            });
            assert_eq!(way.send(&events[..1]), Sent::taken(1));
            let _open = serving.join().unwrap();
            assert_eq!(way.settle(), Settled::Lost { from: 1 });
        });
    }

    #[test]
    fn only_the_right_server_gets_anything() {
        let Some((dir, stranger)) = certificates().zip(certificates()) else { return };
        let (config, listener) = server(dir.path(), false);
        let none = dir.path().join("none.pem");
        std::fs::write(&none, "x").unwrap();
        let refused = |host: &str, ca_file: &Path| {
            std::thread::scope(|scope| {
                let serving = scope.spawn(|| {
                    // A client that cannot begin does not come.
                    if ca_file != none {
                        let mut stream = accept(&config, &listener);
                        let read = stream.read(&mut [0; 100]);
                        assert!(!matches!(read, Ok(1..)), "{read:?}");
                    }
                });
                let sent = way(host, &listener, ca_file).send(&[event(1)]);
                serving.join().unwrap();
                assert_eq!(sent.taken, 0);
                sent.error.unwrap().to_string()
            })
        };
        let ca_file = dir.path().join("ca.pem");
        let next = "; see whether it is the right server, or name the authority that signs its certificate as ca-file";
        let error = refused("127.0.0.1", &stranger.path().join("ca.pem"));
        assert!(error.contains("invalid peer certificate: ") && error.ends_with(next), "{error}");
        let error = refused("localhost", &ca_file);
        assert!(error.contains("not valid for name") && error.ends_with(next), "{error}");
        let error = refused("127.0.0.1", &none);
        assert!(
            error.ends_with(
                "none.pem: holds no certificate; name a file with certificates in PEM as ca-file"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_wants_to_know_its_clients_takes_nothing_and_that_is_seen() {
        let Some(dir) = certificates() else { return };
        let (config, listener) = server(dir.path(), true);
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| accept(&config, &listener).read(&mut [0; 100]).is_err());
            let mut way = way("127.0.0.1", &listener, &dir.path().join("ca.pem"));
            let sent = way.send(&[event(1)]);
            assert!(serving.join().unwrap());
            assert_eq!(sent.taken, 0);
            assert!(sent.error.unwrap().to_string().contains("alert"), "what the server said");
        });
    }
}
