//! A real rsyslogd on sockets and ports of its own, which writes what it understood.

use super::smtp::Certificates;
use super::tool;
use fim::model::clock::{Clock, pause};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long is waited for it to start, and for records.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often it is woken while records are waited for: with data in a TLS session and none in its
/// socket it has been seen to wait for the next event (rsyslog issues 1533 and 4859).
const WAKE: Duration = Duration::from_secs(5);

/// What it writes of each record, by the names of its properties.
const PROPERTIES: [&str; 12] = [
    "pri",
    "syslogfacility-text",
    "syslogseverity-text",
    "timereported",
    "hostname",
    "app-name",
    "procid",
    "msgid",
    "structured-data",
    "syslogtag",
    "inputname",
    "msg",
];

/// Whether syslog can be tested here.
pub fn is_here() -> bool {
    let has_tls = std::fs::read_dir("/usr/lib").is_ok_and(|mut dirs| {
        dirs.any(|dir| dir.is_ok_and(|dir| dir.path().join("rsyslog/lmnsd_ossl.so").is_file()))
    }) || Path::new("/usr/lib/rsyslog/lmnsd_ossl.so").is_file();
    tool::has("rsyslogd")
        && tool::missing(has_tls, "rsyslog-openssl is not installed")
        && tool::has("openssl")
}

/// A running rsyslogd; ends when it is dropped.
pub struct Rsyslog {
    process: Child,
    scratch: tempfile::TempDir,
    certificates: Certificates,
    /// Its UDP port on 127.0.0.1.
    pub udp: u16,
    /// Its TCP port.
    pub tcp: u16,
    /// Its port for TCP over TLS.
    pub tls: u16,
}

impl Rsyslog {
    /// Starts one and waits until it listens everywhere.
    pub fn start() -> Rsyslog {
        let scratch = tempfile::Builder::new().prefix("fim-rsyslog-").tempdir().unwrap();
        let [tcp, tls, udp] = free_ports();
        let certificates = Certificates::new();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("rsyslog.conf"), configuration(&at, &certificates, [udp, tcp, tls]))
            .unwrap();
        let process = spawn(scratch.path());
        let started = Rsyslog { process, scratch, certificates, udp, tcp, tls };
        started.wait_until_it_listens();
        started
    }

    /// Starts it again on the same sockets and ports, once it was killed.
    pub fn start_again(&mut self) {
        self.kill();
        self.process = spawn(self.scratch.path());
        self.wait_until_it_listens();
    }

    /// Ends it at once: what it has not read is lost.
    pub fn kill(&mut self) {
        // One that has ended already is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(self.at("pid"));
    }

    /// Lets it read nothing more, while its sockets stay open.
    pub fn freeze(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }

    /// The local socket as most systems have it: records of the old form, without a host.
    pub fn socket(&self) -> PathBuf {
        self.at("log")
    }

    /// A local socket whose records are parsed as those of the network.
    pub fn plain_socket(&self) -> PathBuf {
        self.at("log-plain")
    }

    /// The log as many systems keep it, of records of the old form.
    pub fn old_log(&self) -> PathBuf {
        self.at("old.log")
    }

    /// The log of records of the new form, with their structured data.
    pub fn new_log(&self) -> PathBuf {
        self.at("new.log")
    }

    /// The authority that signed its certificate.
    pub fn authority(&self) -> PathBuf {
        self.certificates.authority()
    }

    /// What it understood, once there are so many records.
    #[track_caller]
    pub fn records(&self, count: usize) -> Vec<Value> {
        self.records_when(|records| records.len() >= count)
    }

    /// What it understood, once it is as it is wanted.
    #[track_caller]
    pub fn records_when(&self, is_wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let (found, wanted) = self.try_records(&is_wanted, DEADLINE);
        assert!(wanted, "not what was wanted: {found:#?}\n{}", self.log());
        found
    }

    /// What it understood, once it is as it is wanted or that takes too long, and which it is.
    pub fn try_records(
        &self,
        is_wanted: impl Fn(&[Value]) -> bool,
        patience: Duration,
    ) -> (Vec<Value>, bool) {
        let mut found = Vec::new();
        let mut woken = Clock::System.now();
        let wanted = wait(patience, || {
            if Clock::System.now() >= woken + WAKE {
                woken = Clock::System.now();
                drop(std::net::TcpStream::connect(("127.0.0.1", self.tls)));
            }
            let text = std::fs::read_to_string(self.at("records")).unwrap_or_default();
            // The last line may be on its way.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            found = whole
                .lines()
                .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
                .collect();
            is_wanted(&found)
        });
        (found, wanted)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// What it says about itself.
    fn log(&self) -> String {
        ["errors", "own.log"]
            .map(|name| std::fs::read_to_string(self.at(name)).unwrap_or_default())
            .concat()
    }

    #[track_caller]
    fn wait_until_it_listens(&self) {
        let listens = || {
            // It writes this when all inputs are set up.
            self.at("pid").is_file()
                && self.socket().exists()
                && self.plain_socket().exists()
                && UdpSocket::bind(("127.0.0.1", self.udp)).is_err()
                && [self.tcp, self.tls].iter().all(|port| is_listening(*port))
        };
        assert!(wait(DEADLINE, listens), "rsyslogd does not listen:\n{}", self.log());
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports on which nobody listens: two for TCP and one for UDP.
fn free_ports() -> [u16; 3] {
    // All at once, so that they are different ones.
    let (first, second) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
    let third = UdpSocket::bind("127.0.0.1:0");
    [first.unwrap().local_addr(), second.unwrap().local_addr(), third.unwrap().local_addr()]
        .map(|address| address.unwrap().port())
}

/// The parameters of structured data as rsyslog gives it, in which only `"`, `\` and `]` are escaped.
pub fn parameters(structured_data: &str) -> Vec<(String, String)> {
    let mut rest = structured_data.strip_prefix("[fim@32473").expect("our structured data");
    let mut parameters = Vec::new();
    while let Some(next) = rest.strip_prefix(' ') {
        let (key, value) = next.split_once("=\"").unwrap();
        let mut plain = String::new();
        let mut letters = value.char_indices();
        let end = loop {
            match letters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => plain.push(letters.next().unwrap().1),
                (_, c) => plain.push(c),
            }
        };
        parameters.push((key.to_owned(), plain));
        rest = &value[end + 1..];
    }
    assert_eq!(rest, "]", "{structured_data}");
    parameters
}

/// Whether somebody listens on a TCP port, without talking to them.
fn is_listening(port: u16) -> bool {
    let wanted = format!(":{port:04X} 00000000:0000 0A ");
    std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&wanted))
}

/// Asks until it is so, or too late.
fn wait(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Clock::System.now() + patience;
    while Clock::System.now() < until {
        if is_so() {
            return true;
        }
        pause(Duration::from_millis(5));
    }
    is_so()
}

fn spawn(scratch: &Path) -> Child {
    let program =
        ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].into_iter().find(|p| Path::new(p).exists());
    Command::new(program.unwrap_or("rsyslogd"))
        // Without looking up the names of those who connect.
        .args(["-n", "-C", "-x", "-f"])
        .arg(scratch.join("rsyslog.conf"))
        .arg("-i")
        .arg(scratch.join("pid"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(scratch.join("errors")).unwrap())
        .spawn()
        .unwrap()
}

fn configuration(
    at: &impl Fn(&str) -> String,
    certificates: &Certificates,
    [udp, tcp, tls]: [u16; 3],
) -> String {
    let certificate = |name: &str| certificates.dir.path().join(name).to_str().unwrap().to_owned();
    let properties: Vec<String> = PROPERTIES
        .iter()
        .map(|name| {
            let date = if *name == "timereported" { "dateFormat=\"rfc3339\" " } else { "" };
            format!("property(name=\"{name}\" outname=\"{name}\" {date}format=\"jsonf\")")
        })
        .collect();
    let mut text = String::new();
    write!(
        text,
        r#"global(
    workDirectory="{work}" maxMessageSize="64k"
    defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{cert}"
    defaultNetstreamDriverKeyFile="{key}"
)
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
template(name="parsed" type="list") {{
    constant(value="{{")
    {properties}
    constant(value="}}\n")
}}
input(type="imuxsock" Socket="{log}" RateLimit.Interval="0" IgnoreTimestamp="off")
input(type="imuxsock" Socket="{plain}" RateLimit.Interval="0" IgnoreTimestamp="off" UseSpecialParser="off")
input(type="imudp" address="127.0.0.1" port="{udp}" name="udp")
input(type="imtcp" address="127.0.0.1" port="{tcp}" name="tcp" StreamDriver.Name="ptcp")
input(type="imtcp" address="127.0.0.1" port="{tls}" name="tls"
      StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
if $syslogtag startswith "fim" then {{
    action(type="omfile" file="{records}" template="parsed")
    if $msgid == "-" then action(type="omfile" file="{old}" template="RSYSLOG_TraditionalFileFormat")
    else action(type="omfile" file="{new}" template="RSYSLOG_SyslogProtocol23Format")
}} else if $syslogtag startswith "rsyslogd" then action(type="omfile" file="{own}")
"#,
        work = at(""),
        ca = certificate("ca.pem"),
        cert = certificate("server.pem"),
        key = certificate("server.key"),
        properties = properties.join("\n    constant(value=\",\")\n    "),
        log = at("log"),
        plain = at("log-plain"),
        records = at("records"),
        old = at("old.log"),
        new = at("new.log"),
        own = at("own.log"),
    )
    .unwrap();
    text
}
