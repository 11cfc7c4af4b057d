//! What the parts cost by themselves, with criterion:
//!
//! ```text
//! cargo bench --bench parts
//! cargo bench --bench parts -- digest
//! ```
//!
//! A word after `--` chooses the benchmarks whose names contain it. `cargo test --bench parts` runs
//! each once, to see that it still works. The page cache is warm.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement that cannot be made ends with its cause"
)]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fim::baseline::draft::{About, Draft};
use fim::baseline::rows::{Reader, Recorded, Span};
use fim::baseline::{self, Baseline};
use fim::drift::examine::{self, Input, Visit};
use fim::model::attribute::{Attribute, AttributeSet};
use fim::model::change::{Finding, Place};
use fim::model::name::{self, DirName};
use fim::model::scope::{Look, Scope};
use fim::ops::scan::Rules;
use fim::policy::files::MemoryFiles;
use fim::policy::selection::{Ground, Selection};
use fim::policy::{file, profile};
use fim::scan::digest::{self, Extent, Wanted};
use fim::scan::directory::{self, OpenDir};
use fim::scan::probe::{self, Question};
use fim::scan::together::Contents;
use fim::scan::{Settings, Tools};
use fim::sign::trust::{self, KeyFiles, Pins};
use fim::state::StateDir;
use fim::sys::open::Hint;
use fim::sys::stat;
use std::convert::Infallible;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

criterion_group!(parts, walk, probe, digest, together, join, rows, draft, selection, escape);
criterion_main!(parts);

/// Directories of the tree, and files in each.
const DIRS: usize = 250;
const FILES: usize = 20;

/// Objects of the tree, itself and the groups of ten directories among them.
const OBJECTS: u64 = (1 + DIRS / 10 + DIRS + DIRS * FILES) as u64;

/// A scratch host with a tree of small files and a baseline of it.
struct Host {
    scratch: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { scratch: tempfile::tempdir().unwrap() };
        for dir in 0..DIRS {
            let path = host.at(&format!("root/tree/group-{:02}/dir-{dir:03}", dir / 10));
            fs::create_dir_all(&path).unwrap();
            for file in 0..FILES {
                // 0.2 to 8 KiB, as in benches/make-corpus.sh.
                let content = vec![b'x'; 205 << ((dir + file) % 6)];
                fs::write(path.join(format!("file-{file:02}.conf")), content).unwrap();
            }
        }
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The rules of a policy that covers the tree.
    fn rules(profile: &str) -> Rules {
        let text = format!(
            "version = 1\n[[rule]]\nname = \"tree\"\npaths = [\"/tree\"]\nprofile = \"{profile}\"\nseverity = \"high\"\n"
        );
        let files = MemoryFiles::from([("policy.toml", text.as_str())]);
        let policy = file::parse("policy.toml", &files).unwrap();
        Rules { active: vec![true; policy.rules.len()], rules: policy.rules }
    }

    /// A verified baseline of the tree, made by the program itself.
    fn baseline(&self) -> Baseline {
        let policy = "version = 1\n[[rule]]\nname = \"tree\"\npaths = [\"/tree\"]\nprofile = \"binary\"\nseverity = \"high\"\n";
        fs::write(self.at("policy.toml"), policy).unwrap();
        let config = format!("[[sink]]\ntype = \"file\"\npath = {:?}\n", self.at("events"));
        fs::write(self.at("fim.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fim"));
        for (flag, name) in [
            ("--root", "root"),
            ("--state", "state"),
            ("--policy", "policy.toml"),
            ("--config", "fim.toml"),
        ] {
            command.arg(flag).arg(self.at(name));
        }
        command.args(["init", "--no-passphrase"]).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
        let key = |object: &str| fs::read_to_string(self.at("state").join(object)).unwrap();
        let files = KeyFiles {
            site_pub: key(trust::SITE_PUB),
            local_pub: key(trust::LOCAL_PUB),
            local_pub_sig: Some(key(trust::LOCAL_PUB_SIG)),
            allowed_signers: Some(key(trust::ALLOWED_SIGNERS)),
            ..KeyFiles::default()
        };
        let trust = trust::believe(&files, &Pins::default()).unwrap();
        let state = StateDir::open(&self.at("state")).unwrap();
        let sealed = baseline::sealed(&state, &trust, 0).unwrap();
        baseline::open(&state, sealed).unwrap()
    }

    /// One examination of the whole tree; how many findings there were.
    fn examine(&self, rules: &Rules, baseline: Option<&Baseline>, look: Look) -> u64 {
        let selection = rules.selection().unwrap();
        let scope = Scope { look, ..Scope::everything(self.at("root")) };
        let input = Input {
            rules: &rules.rules,
            selection: &selection,
            before: None,
            baseline,
            scope: &scope,
        };
        let findings = Findings::default();
        let outcome = examine::examine(input, &tools(), &findings).unwrap();
        assert_eq!(outcome.objects.iter().sum::<u64>(), OBJECTS);
        findings.0.into_inner()
    }
}

/// Counts what is found.
#[derive(Default)]
struct Findings(std::sync::atomic::AtomicU64);

impl Visit for Findings {
    fn findings(&self, findings: Vec<Finding>) {
        self.0.fetch_add(findings.len() as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

fn tools() -> Arc<Tools> {
    Arc::new(Tools::new(Settings::default()))
}

/// Listing: one directory, and a whole tree with and without a look at each object.
fn walk(criterion: &mut Criterion) {
    let host = Host::new();
    fs::create_dir(host.at("wide")).unwrap();
    for number in 0..1000 {
        File::create(host.at(&format!("wide/file-{:04}", number * 7919 % 1000))).unwrap();
    }
    let mut group = criterion.benchmark_group("walk");
    group.throughput(Throughput::Elements(1000));
    let wide = OpenDir::root(&host.at("wide"), &tools()).unwrap();
    // A directory that was just filled is listed twice, to be sure.
    fim::model::clock::pause(Duration::from_millis(50));
    group.bench_function("one directory", |bench| {
        bench.iter(|| assert_eq!(directory::list(&wide).unwrap().listing.len(), 1000));
    });
    group.throughput(Throughput::Elements(OBJECTS));
    let rules = Host::rules("dynamic");
    group.bench_function("tree, names", |bench| {
        bench.iter(|| assert_eq!(host.examine(&rules, None, Look::Names), OBJECTS));
    });
    group.bench_function("tree, statx", |bench| {
        bench.iter(|| assert_eq!(host.examine(&rules, None, Look::Full), OBJECTS));
    });
    group.finish();
}

/// One file of 2 KiB: opened, looked at, read and hashed, looked at again.
fn probe(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("file"), [b'x'; 2048]).unwrap();
    fim::model::clock::pause(Duration::from_millis(50));
    let tools = tools();
    let dir = OpenDir::root(scratch.path(), &tools).unwrap();
    let mut group = criterion.benchmark_group("probe");
    group.throughput(Throughput::Elements(1));
    let sets = [
        ("statx", profile::built_in("dynamic").unwrap()),
        ("content", profile::built_in("dynamic").unwrap().with(Attribute::Content)),
        ("profile binary", profile::built_in("binary").unwrap()),
    ];
    for (name, attributes) in sets {
        let question = Question { attributes, recorded: None, look: Look::Full, shared: false };
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let answer = probe::probe_alone(dir.fd(), (c"file", Hint::File), question, &tools);
                assert!(answer.facts.is_some() && answer.trouble.is_none());
            });
        });
    }
    group.finish();
}

/// One content, by its size, and by all digests at once.
fn digest(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir().unwrap();
    let tools = tools();
    let only_blake3 = Wanted { blake3: true, ..Wanted::default() };
    let all = Wanted { blake3: true, sha256: true, sha512: true };
    let mut group = criterion.benchmark_group("digest");
    group.sample_size(20);
    let sizes: [(&str, usize); 7] = [
        ("100 B", 100),
        ("1 KiB", 1 << 10),
        ("4 KiB", 4 << 10),
        ("16 KiB", 16 << 10),
        ("64 KiB", 64 << 10),
        ("1 MiB", 1 << 20),
        ("64 MiB", 64 << 20),
    ];
    for (name, size) in sizes {
        let path = scratch.path().join(size.to_string());
        fs::write(&path, vec![b'x'; size]).unwrap();
        let file = File::open(&path).unwrap();
        let extent =
            Extent { size: size as u64, blocks: size.div_ceil(512) as u64, prefix_only: false };
        group.throughput(Throughput::Bytes(size as u64));
        for (set, wanted) in [("blake3", only_blake3), ("all", all)] {
            // The other digests read in one way only, and take their time.
            if set == "all" && size != 1 << 20 {
                continue;
            }
            group.bench_function(BenchmarkId::new(set, name), |bench| {
                bench.iter(|| {
                    let deadline = stat::monotonic() + Duration::from_secs(60);
                    black_box(digest::of(file.as_fd(), extent, wanted, deadline, &tools)).unwrap()
                });
            });
        }
    }
    group.finish();
}

/// Small contents, hashed one by one and together; in memory already.
fn together(criterion: &mut Criterion) {
    let contents: Vec<Vec<u8>> = (0..256usize).map(|n| vec![b'x'; 200 + n * 131 % 8000]).collect();
    let bytes: usize = contents.iter().map(Vec::len).sum();
    let mut group = criterion.benchmark_group("small contents");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("one by one", |bench| {
        bench.iter(|| contents.iter().map(|content| blake3::hash(content)).collect::<Vec<_>>());
    });
    let mut all = Contents::new();
    group.bench_function("together", |bench| {
        bench.iter(|| {
            for content in &contents {
                let copy = |space: &mut [u8]| {
                    space.copy_from_slice(content);
                    Ok::<_, Infallible>(content.len())
                };
                all.push(content.len(), copy).unwrap();
            }
            black_box(all.digests());
        });
    });
    group.finish();
}

/// An unchanged tree and its baseline, joined directory by directory.
fn join(criterion: &mut Criterion) {
    let host = Host::new();
    let baseline = host.baseline();
    let rules = Rules::of(&baseline).unwrap();
    let mut group = criterion.benchmark_group("join");
    group.throughput(Throughput::Elements(OBJECTS));
    for (name, look) in [("everything", Look::Full), ("fast", Look::Fast)] {
        group.bench_function(name, |bench| {
            bench.iter(|| assert_eq!(host.examine(&rules, Some(&baseline), look), 0));
        });
    }
    group.finish();
}

/// The entries of a directory.
type Entries = Vec<(Box<[u8]>, Recorded)>;

/// All rows below a directory, in the order in which a scan asks for them; how many.
fn each_row(
    reader: &Reader,
    id: i64,
    dir: &Arc<DirName>,
    each: &mut impl FnMut(&Arc<DirName>, Recorded, Entries),
    recorded: Recorded,
) -> u64 {
    let mut entries = Entries::new();
    reader
        .entries::<baseline::Error>(id, Span::ALL, |name, recorded| {
            entries.push((name.into(), recorded));
            Ok(())
        })
        .unwrap();
    let mut count = 1 + entries.len() as u64;
    each(dir, recorded, entries);
    for row in reader.directories(id, Span::ALL).unwrap() {
        let below = DirName::below(dir, &row.name);
        count += each_row(reader, row.id, &below, each, row.recorded.flatten());
    }
    count
}

/// Reading all rows of a baseline.
fn rows(criterion: &mut Criterion) {
    let host = Host::new();
    let baseline = host.baseline();
    let reader = baseline.reader().unwrap();
    let root = reader.directory(0, b"").unwrap().unwrap().id;
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(OBJECTS));
    group.bench_function("read", |bench| {
        bench.iter(|| {
            let count = each_row(
                &reader,
                root,
                &DirName::root(),
                &mut |_, recorded, entries| {
                    black_box((recorded, entries));
                },
                None,
            );
            // The root has a row, and no rule covers it.
            assert_eq!(count, OBJECTS + 1);
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("find one path", |bench| {
        let path = b"/tree/group-12/dir-123/file-11.conf";
        bench.iter(|| assert!(reader.find(black_box(path)).unwrap().is_some()));
    });
    group.finish();
}

/// Writing all rows of a baseline, until they are on the disk.
fn draft(criterion: &mut Criterion) {
    let host = Host::new();
    let baseline = host.baseline();
    let reader = baseline.reader().unwrap();
    let root = reader.directory(0, b"").unwrap().unwrap().id;
    let attributes: AttributeSet = baseline.recorded_attributes();
    let mut group = criterion.benchmark_group("draft");
    group.throughput(Throughput::Elements(OBJECTS)).sample_size(20);
    group.bench_function("write", |bench| {
        bench.iter_batched(
            || {
                // Names remember their numbers in the database they were first written to.
                let mut objects = Vec::new();
                let mut each = |dir: &Arc<DirName>, recorded: Recorded, entries: Entries| {
                    if dir.parent().is_some() {
                        objects.push((Arc::clone(dir), Place::Own, recorded));
                    }
                    let entries = entries
                        .into_iter()
                        .map(|(name, recorded)| (Arc::clone(dir), Place::Entry(name), recorded));
                    objects.extend(entries);
                };
                each_row(&reader, root, &DirName::root(), &mut each, None);
                let scratch = tempfile::tempdir().unwrap();
                let state = StateDir::create(&scratch.path().join("state")).unwrap();
                state.make_dir("baseline").unwrap();
                (scratch, state, objects)
            },
            |(scratch, state, objects)| {
                let mut draft = Draft::create(&state, 1, attributes).unwrap();
                for (dir, place, recorded) in objects {
                    draft.put(&dir, &place, recorded).unwrap();
                }
                let finished = draft.finish(&About::default()).unwrap();
                assert_eq!(finished.entries, OBJECTS);
                drop(state);
                // Given back: what removes it is not measured.
                scratch
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Names as on a server, a directory with some of its entries in each line.
const HOST: &[(&str, &[&str])] = &[
    (
        "/etc",
        &["passwd", "shadow", "group", "hosts", "fstab", "mtab", "ssh", "cron.d", "resolv.conf"],
    ),
    ("/etc/ssh", &["sshd_config", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "moduli"]),
    ("/etc/cron.d", &[".placeholder", "e2scrub_all", "sysstat"]),
    (
        "/usr/bin",
        &[
            "awk",
            "bash",
            "cat",
            "dpkg",
            "find",
            "perl",
            "python3.13",
            "sudo",
            "x86_64-linux-gnu-gcc-14",
        ],
    ),
    ("/usr/sbin", &["agetty", "cron", "fim", "sshd", "useradd"]),
    ("/usr/lib/x86_64-linux-gnu", &["libc.so.6", "libcrypto.so.3", "libssl.so.3", "libz.so.1.3.1"]),
    ("/usr/lib/x86_64-linux-gnu/security", &["pam_unix.so", "pam_env.so", "pam_limits.so"]),
    (
        "/usr/lib/python3/dist-packages/apt",
        &["__init__.py", "cache.py", "package.py", "__pycache__"],
    ),
    ("/usr/share/doc/bash", &["README.gz", "copyright", "changelog.Debian.gz", "examples"]),
    ("/usr/lib/modules/6.12.48/kernel/fs/ext4", &["ext4.ko.xz", "ext4-inode-test.ko.xz"]),
    ("/boot", &["vmlinuz-6.12.48", "initrd.img-6.12.48", "config-6.12.48", "grub"]),
    ("/var/log", &["syslog", "auth.log", "auth.log.1", "journal", "apt"]),
    ("/var/qmail/control", &["me", "rcpthosts", "locals"]),
    ("/home/alice/src/project/target/debug/deps", &["libfoo-0123456789abcdef.rlib", "foo.d"]),
    ("/root/.ssh", &["authorized_keys", "known_hosts", "id_ed25519"]),
];

/// The built-in policy, asked for each entry as a scan does.
fn selection(criterion: &mut Criterion) {
    let policy = file::built_in();
    let active = vec![true; policy.rules.len()];
    let selection = Selection::compile(&policy.rules, &active).unwrap();
    let ground = |path: &str| -> Ground {
        name::components(path.as_bytes())
            .fold(selection.root().ground, |ground, name| selection.step(&ground, name).ground)
    };
    let grounds: Vec<(Ground, &[&str])> =
        HOST.iter().map(|(dir, entries)| (ground(dir), *entries)).collect();
    let count: usize = grounds.iter().map(|(_, entries)| entries.len()).sum();
    let mut group = criterion.benchmark_group("selection");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("step", |bench| {
        bench.iter(|| {
            for (ground, entries) in &grounds {
                for entry in *entries {
                    black_box(selection.step(ground, black_box(entry.as_bytes())));
                }
            }
        });
    });
    group.throughput(Throughput::Elements(policy.rules.len() as u64));
    group.bench_function("compile", |bench| {
        bench.iter(|| black_box(Selection::compile(&policy.rules, &active).unwrap()));
    });
    group.finish();
}

/// Names as they are shown.
fn escape(criterion: &mut Criterion) {
    let plain: Vec<Vec<u8>> = HOST
        .iter()
        .flat_map(|(dir, entries)| {
            entries.iter().map(|entry| name::join(dir.as_bytes(), entry.as_bytes()))
        })
        .collect();
    let hostile: Vec<Vec<u8>> = plain
        .iter()
        .map(|path| {
            [path, &b"\x1b[2K\r\\ok\n\xff\xfe"[..], "\u{202e}gpj.\u{200b}é".as_bytes()].concat()
        })
        .collect();
    let mut group = criterion.benchmark_group("escape");
    for (kind, names) in [("plain", &plain), ("hostile", &hostile)] {
        group.throughput(Throughput::Elements(names.len() as u64));
        group.bench_function(kind, |bench| {
            bench.iter(|| {
                for name in names {
                    black_box(name::escape(black_box(name)));
                }
            });
        });
    }
    group.finish();
}
