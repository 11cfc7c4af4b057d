//! The text that is signed: sorted `key: value` lines.
//!
//! A manifest has one form: lines in the order of `LC_ALL=C sort`, ASCII, LF, every key once. What
//! parses is written back byte for byte, anything else is refused, so that a signature stands for
//! one meaning. The typed views ([`BaselineManifest`], [`PolicyManifest`]) hold exactly the keys of
//! their format; an unknown one is refused, because the program that wrote it meant something.

use super::key::PublicKey;
use crate::model::name;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Longest manifest that is looked at, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The version both formats have; newer ones are refused by name.
const VERSION: u64 = 1;

/// The word for a value that is not there.
const NONE: &str = "none";

/// The word for a policy that came with the program.
const BUILT_IN: &str = "built-in";

/// What a policy manifest's lines of files begin with.
const FILE: &str = "file/";

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not in the one form a manifest has.
    #[error("line {line}: {cause}")]
    Malformed {
        /// Counted from 1; 0 where the text as a whole is meant.
        line: usize,
        /// What is wrong.
        cause: &'static str,
    },
    /// A format of the future.
    #[error("written by a newer fim (format {0}); use that version to read it")]
    Newer(u64),
    /// A key of the format is not there.
    #[error("no line {0:?}")]
    Missing(String),
    /// A key that the format does not have, escaped.
    #[error("unknown line {0:?}")]
    Unknown(String),
    /// A value that its key cannot have.
    #[error("{key}: expected {expected}")]
    Value {
        /// The key, escaped.
        key: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// Somebody else signed than the manifest says.
    #[error("says it is signed by {claimed}, but {signer} signed it")]
    SignedBy {
        /// What the manifest says, escaped.
        claimed: String,
        /// Who signed.
        signer: String,
    },
}

/// BLAKE3 of a manifest's text: what names policy directories and chains generations.
pub fn digest(text: &[u8]) -> [u8; 32] {
    *blake3::hash(text).as_bytes()
}

/// Whether the manifest names its real signer: the key under which its signature verified.
pub fn verify_signed_by(claimed: &str, signer: &PublicKey) -> Result<(), ManifestError> {
    let signer = signer.fingerprint();
    if claimed == signer {
        return Ok(());
    }
    Err(ManifestError::SignedBy { claimed: escape_value(claimed), signer })
}

/// Keys and values, as they are meant; escaped only in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    values: BTreeMap<String, String>,
}

impl Manifest {
    /// An empty one.
    pub fn new() -> Manifest {
        Manifest::default()
    }

    /// Sets a value, in place of one that was there.
    pub fn set(&mut self, key: &str, value: &str) {
        self.values.insert(key.to_owned(), value.to_owned());
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The text, in its one form.
    pub fn to_text(&self) -> String {
        let mut lines: Vec<String> = self
            .values
            .iter()
            .map(|(key, value)| format!("{}: {}\n", escape_key(key), escape_value(value)))
            .collect();
        lines.sort_unstable();
        lines.concat()
    }

    /// Reads a text; what it returns has exactly this text.
    pub fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let whole = |cause| ManifestError::Malformed { line: 0, cause };
        if text.len() > MAX_BYTES {
            return Err(whole("longer than any manifest"));
        }
        let Some(body) = text.strip_suffix(b"\n") else {
            return Err(whole("the last line is not ended"));
        };
        let mut manifest = Manifest::new();
        for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |cause| ManifestError::Malformed { line: index + 1, cause };
            let (key, value) = parse_line(line).map_err(wrong)?;
            if manifest.values.insert(key, value).is_some() {
                return Err(wrong("this key was there before"));
            }
        }
        if manifest.to_text().as_bytes() != text {
            return Err(whole("lines are not sorted, or something is escaped that need not be"));
        }
        Ok(manifest)
    }
}

fn parse_line(line: &[u8]) -> Result<(String, String), &'static str> {
    if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("a byte that is not printable ASCII");
    }
    let line = std::str::from_utf8(line).map_err(|_| "a byte that is not printable ASCII")?;
    let (key, value) = line.split_once(": ").ok_or("not of the form `key: value`")?;
    if key.is_empty() {
        return Err("no key");
    }
    let plain = |shown| name::unescape(shown).and_then(|bytes| String::from_utf8(bytes).ok());
    plain(key).zip(plain(value)).ok_or("an escape that stands for nothing")
}

/// As [`name::escape`], in ASCII: other characters as the `\xNN` of their UTF-8 bytes.
fn escape_value(value: &str) -> String {
    let mut ascii = String::with_capacity(value.len());
    for c in name::escape(value.as_bytes()).chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            push_escaped(&mut ascii, c);
        }
    }
    ascii
}

/// As [`escape_value`], and without the two characters that end a key.
fn escape_key(key: &str) -> String {
    let mut ascii = String::with_capacity(key.len());
    for c in escape_value(key).chars() {
        if matches!(c, ':' | ' ') {
            push_escaped(&mut ascii, c);
        } else {
            ascii.push(c);
        }
    }
    ascii
}

fn push_escaped(text: &mut String, c: char) {
    let mut buffer = [0; 4];
    for byte in c.encode_utf8(&mut buffer).bytes() {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// What is signed about a generation of the baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineManifest {
    /// BLAKE3 of the database file.
    pub baseline_blake3: [u8; 32],
    /// Length of the database file in bytes.
    pub baseline_bytes: u64,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// Number of recorded objects.
    pub entries: u64,
    /// Its number, from 1.
    pub generation: u64,
    /// The host it was made on.
    pub host: String,
    /// BLAKE3 of the policy's manifest, which names the policy's directory.
    pub policy_blake3: [u8; 32],
    /// BLAKE3 of the manifest of the generation before; `None` for generation 1 and only there.
    pub previous_manifest_blake3: Option<[u8; 32]>,
    /// Why it was made, in the administrator's words; may be empty.
    pub reason: String,
    /// The report it was reviewed in, if there was one.
    pub report: Option<String>,
    /// Fingerprint of the key that signs; whether it is so, [`verify_signed_by`] tells.
    pub signed_by: String,
}

impl BaselineManifest {
    /// The text to sign. What would not read back as itself is refused.
    pub fn to_text(&self) -> Result<String, ManifestError> {
        let previous = self.previous_manifest_blake3.as_ref().map_or(NONE.to_owned(), hex);
        let mut manifest = Manifest::new();
        manifest.set("fim-manifest", &VERSION.to_string());
        manifest.set("baseline-blake3", &hex(&self.baseline_blake3));
        manifest.set("baseline-bytes", &self.baseline_bytes.to_string());
        manifest.set("created", &self.created);
        manifest.set("entries", &self.entries.to_string());
        manifest.set("generation", &self.generation.to_string());
        manifest.set("host", &self.host);
        manifest.set("policy-blake3", &hex(&self.policy_blake3));
        manifest.set("previous-manifest-blake3", &previous);
        manifest.set("reason", &self.reason);
        manifest.set("report", self.report.as_deref().unwrap_or(NONE));
        manifest.set("signed-by", &self.signed_by);
        let text = manifest.to_text();
        read_back(self, BaselineManifest::parse(text.as_bytes())?)?;
        Ok(text)
    }

    /// Reads a text whose signature has been verified; `signed-by` is not checked here.
    pub fn parse(text: &[u8]) -> Result<BaselineManifest, ManifestError> {
        let mut lines = Lines::of(text, "fim-manifest")?;
        let manifest = BaselineManifest {
            baseline_blake3: lines.digest("baseline-blake3")?,
            baseline_bytes: lines.number("baseline-bytes")?,
            created: lines.text("created")?,
            entries: lines.number("entries")?,
            generation: lines.number("generation")?,
            host: lines.text("host")?,
            policy_blake3: lines.digest("policy-blake3")?,
            previous_manifest_blake3: lines.digest_or_none("previous-manifest-blake3")?,
            reason: lines.text("reason")?,
            report: lines.text_unless("report", NONE)?,
            signed_by: lines.text("signed-by")?,
        };
        lines.finish()?;
        if manifest.generation == 0 {
            return Err(value("generation", "a number from 1"));
        }
        if (manifest.generation == 1) != manifest.previous_manifest_blake3.is_none() {
            return Err(value("previous-manifest-blake3", "none for generation 1, a digest else"));
        }
        Ok(manifest)
    }
}

/// What is signed about a policy: which files it is made of, and where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyManifest {
    /// When it was signed, RFC 3339 in UTC.
    pub created: String,
    /// The host it is meant for; `None` if it was signed for any.
    pub host: Option<String>,
    /// Name of the policy's main file among `files`.
    pub policy: String,
    /// Absolute path the policy came from; `None` for the one built into the program.
    pub source: Option<String>,
    /// Name of the configuration among `files`; `None` if there is none.
    pub config: Option<String>,
    /// Absolute path the configuration came from.
    pub config_source: Option<String>,
    /// BLAKE3 of each file, by its name relative to the policy's directory.
    pub files: BTreeMap<String, [u8; 32]>,
    /// Fingerprint of the key that signs; whether it is so, [`verify_signed_by`] tells.
    pub signed_by: String,
}

impl PolicyManifest {
    /// The text to sign. What would not read back as itself is refused.
    pub fn to_text(&self) -> Result<String, ManifestError> {
        let mut manifest = Manifest::new();
        manifest.set("fim-policy-manifest", &VERSION.to_string());
        manifest.set("created", &self.created);
        manifest.set("host", self.host.as_deref().unwrap_or(NONE));
        manifest.set("policy", &self.policy);
        manifest.set("source", self.source.as_deref().unwrap_or(BUILT_IN));
        manifest.set("config", self.config.as_deref().unwrap_or(NONE));
        manifest.set("config-source", self.config_source.as_deref().unwrap_or(NONE));
        for (name, digest) in &self.files {
            manifest.set(&format!("{FILE}{name}"), &hex(digest));
        }
        manifest.set("signed-by", &self.signed_by);
        let text = manifest.to_text();
        read_back(self, PolicyManifest::parse(text.as_bytes())?)?;
        Ok(text)
    }

    /// Reads a text whose signature has been verified; `signed-by` is not checked here.
    ///
    /// Every name of a file is a relative path without empty, `.` or `..` components, so that it
    /// names something below the policy's directory.
    pub fn parse(text: &[u8]) -> Result<PolicyManifest, ManifestError> {
        let mut lines = Lines::of(text, "fim-policy-manifest")?;
        let manifest = PolicyManifest {
            created: lines.text("created")?,
            host: lines.text_unless("host", NONE)?,
            policy: lines.text("policy")?,
            source: lines.path_unless("source", BUILT_IN)?,
            config: lines.text_unless("config", NONE)?,
            config_source: lines.path_unless("config-source", NONE)?,
            files: lines.files()?,
            signed_by: lines.text("signed-by")?,
        };
        lines.finish()?;
        if !manifest.files.contains_key(&manifest.policy) {
            return Err(value("policy", "the name of a file that has a line"));
        }
        if manifest.config.as_ref().is_some_and(|config| !manifest.files.contains_key(config)) {
            return Err(value("config", "the name of a file that has a line, or none"));
        }
        Ok(manifest)
    }
}

/// Whether a name stays below the directory it is relative to, whatever is there.
pub fn is_safe_name(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A signed text must mean what its writer meant: a report called "none" would not.
fn read_back<T: PartialEq>(meant: &T, read: T) -> Result<(), ManifestError> {
    if *meant == read {
        return Ok(());
    }
    let cause = "a value would not read back as itself";
    Err(ManifestError::Malformed { line: 0, cause })
}

/// The lines of a manifest that nobody has asked for yet.
struct Lines {
    values: BTreeMap<String, String>,
}

impl Lines {
    /// The lines of a text in version 1 of the format that `version_key` names.
    fn of(text: &[u8], version_key: &str) -> Result<Lines, ManifestError> {
        let mut lines = Lines { values: Manifest::parse(text)?.values };
        match lines.number(version_key)? {
            VERSION => Ok(lines),
            0 => Err(value(version_key, "1")),
            newer => Err(ManifestError::Newer(newer)),
        }
    }

    fn text(&mut self, key: &str) -> Result<String, ManifestError> {
        self.values.remove(key).ok_or_else(|| ManifestError::Missing(key.to_owned()))
    }

    fn text_unless(&mut self, key: &str, absent: &str) -> Result<Option<String>, ManifestError> {
        Ok(Some(self.text(key)?).filter(|text| text != absent))
    }

    fn path_unless(&mut self, key: &str, absent: &str) -> Result<Option<String>, ManifestError> {
        let path = self.text_unless(key, absent)?;
        if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(value(key, "an absolute path"));
        }
        Ok(path)
    }

    /// A number in the one way to write it: no sign, no leading zero.
    fn number(&mut self, key: &str) -> Result<u64, ManifestError> {
        let text = self.text(key)?;
        let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
        number.ok_or_else(|| value(key, "a number"))
    }

    fn digest(&mut self, key: &str) -> Result<[u8; 32], ManifestError> {
        let text = self.text(key)?;
        parse_hex(&text).ok_or_else(|| value(key, "64 lower-case hexadecimal digits"))
    }

    fn digest_or_none(&mut self, key: &str) -> Result<Option<[u8; 32]>, ManifestError> {
        if self.values.get(key).is_some_and(|text| text == NONE) {
            self.values.remove(key);
            return Ok(None);
        }
        self.digest(key).map(Some)
    }

    fn files(&mut self) -> Result<BTreeMap<String, [u8; 32]>, ManifestError> {
        let keys: Vec<String> =
            self.values.keys().filter(|key| key.starts_with(FILE)).cloned().collect();
        let mut files = BTreeMap::new();
        for key in keys {
            let name = &key[FILE.len()..];
            if !is_safe_name(name) {
                return Err(value(&key, "a relative path without . and .."));
            }
            let digest = self.digest(&key)?;
            files.insert(name.to_owned(), digest);
        }
        Ok(files)
    }

    fn finish(self) -> Result<(), ManifestError> {
        match self.values.into_keys().next() {
            None => Ok(()),
            Some(key) => Err(ManifestError::Unknown(escape_key(&key))),
        }
    }
}

fn value(key: &str, expected: &'static str) -> ManifestError {
    ManifestError::Value { key: escape_key(key), expected }
}

fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digest = *blake3::Hash::from_hex(text).ok()?.as_bytes();
    (hex(&digest) == text).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::key::SecretKey;
    use expect_test::expect;
    use proptest::prelude::*;

    fn baseline() -> BaselineManifest {
        BaselineManifest {
            baseline_blake3: [0x01; 32],
            baseline_bytes: 40960,
            created: "2026-11-20T03:15:00.120Z".into(),
            entries: 181_234,
            generation: 3,
            host: "mail1".into(),
            policy_blake3: [0xab; 32],
            previous_manifest_blake3: Some([0xcd; 32]),
            reason: "Grüße: \\o/\nsigned-by: nobody".into(),
            report: None,
            signed_by: "SHA256:abc".into(),
        }
    }

    fn policy() -> PolicyManifest {
        PolicyManifest {
            created: "2026-11-20T03:15:00.120Z".into(),
            host: Some("mail1".into()),
            policy: "policy.toml".into(),
            source: Some("/etc/fim/policy.toml".into()),
            config: Some("fim.toml".into()),
            config_source: Some("/etc/fim/fim.toml".into()),
            files: [("policy.toml", 1), ("fim.toml", 2), ("policy.d/a: b ü.toml", 3)]
                .map(|(name, byte)| (name.to_owned(), [byte; 32]))
                .into(),
            signed_by: "SHA256:abc".into(),
        }
    }

    #[test]
    fn a_baseline_manifest_reads_as_the_contract_says() {
        let text = baseline().to_text().unwrap();
        expect![[r#"
            baseline-blake3: 0101010101010101010101010101010101010101010101010101010101010101
            baseline-bytes: 40960
            created: 2026-11-20T03:15:00.120Z
            entries: 181234
            fim-manifest: 1
            generation: 3
            host: mail1
            policy-blake3: abababababababababababababababababababababababababababababababab
            previous-manifest-blake3: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
            reason: Gr\xc3\xbc\xc3\x9fe: \\o/\x0asigned-by: nobody
            report: none
            signed-by: SHA256:abc
        "#]]
        .assert_eq(&text);
        assert_eq!(BaselineManifest::parse(text.as_bytes()), Ok(baseline()));
    }

    #[test]
    fn a_policy_manifest_reads_as_the_contract_says() {
        let text = policy().to_text().unwrap();
        expect![[r#"
            config-source: /etc/fim/fim.toml
            config: fim.toml
            created: 2026-11-20T03:15:00.120Z
            file/fim.toml: 0202020202020202020202020202020202020202020202020202020202020202
            file/policy.d/a\x3a\x20b\x20\xc3\xbc.toml: 0303030303030303030303030303030303030303030303030303030303030303
            file/policy.toml: 0101010101010101010101010101010101010101010101010101010101010101
            fim-policy-manifest: 1
            host: mail1
            policy: policy.toml
            signed-by: SHA256:abc
            source: /etc/fim/policy.toml
        "#]]
        .assert_eq(&text);
        assert_eq!(PolicyManifest::parse(text.as_bytes()), Ok(policy()));

        let built_in = PolicyManifest {
            host: None,
            policy: "default.toml".into(),
            source: None,
            config: None,
            config_source: None,
            files: [("default.toml".to_owned(), [9; 32])].into(),
            ..policy()
        };
        let text = built_in.to_text().unwrap();
        assert!(text.contains("\nsource: built-in\n") && text.starts_with("config-source: none\n"));
        assert_eq!(PolicyManifest::parse(text.as_bytes()), Ok(built_in));
    }

    #[test]
    fn every_line_is_mandatory_and_none_is_extra() {
        let texts = [baseline().to_text().unwrap(), policy().to_text().unwrap()];
        let parses = |text: &str| {
            BaselineManifest::parse(text.as_bytes()).is_ok()
                || PolicyManifest::parse(text.as_bytes()).is_ok()
        };
        for text in &texts {
            assert!(parses(text));
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            for left_out in 0..lines.len() {
                let mut fewer = lines.clone();
                let line = fewer.remove(left_out);
                let optional = line.starts_with("file/policy.d/");
                assert_eq!(parses(&fewer.concat()), optional, "without {line}");
                let mut twice = lines.clone();
                twice.insert(left_out, line);
                assert!(!parses(&twice.concat()), "twice {line}");
            }
            assert!(!parses(&format!("{text}zone: 1\n")));
            assert!(!parses(&format!("{text}\n")));
            assert!(!parses(&text.replace('\n', "\r\n")));
            assert!(!parses(text.trim_end()));
            assert!(!parses(&lines.iter().rev().copied().collect::<String>()));
        }
        assert!(BaselineManifest::parse(texts[1].as_bytes()).is_err());
        assert!(PolicyManifest::parse(texts[0].as_bytes()).is_err());
        let unknown = format!("{}zone: 1\n", texts[0]);
        assert_eq!(
            BaselineManifest::parse(unknown.as_bytes()),
            Err(ManifestError::Unknown("zone".into()))
        );
    }

    #[test]
    fn a_newer_format_is_called_newer() {
        let text = baseline().to_text().unwrap().replace("fim-manifest: 1\n", "fim-manifest: 2\n");
        let error = BaselineManifest::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error, ManifestError::Newer(2));
        assert!(error.to_string().contains("written by a newer fim"));
    }

    #[test]
    fn values_have_one_spelling() {
        let text = baseline().to_text().unwrap();
        for (good, bad) in [
            ("entries: 181234", "entries: +181234"),
            ("entries: 181234", "entries: 0181234"),
            ("entries: 181234", "entries: 99999999999999999999"),
            ("policy-blake3: abab", "policy-blake3: ABAB"),
            ("policy-blake3: abab", "policy-blake3: ab"),
            ("host: mail1", "host: \\x6dail1"),
            ("host: mail1", "host: mail\\xff"),
            ("host: mail1", "host: mail\\1"),
            ("host: mail1", "host: maíl"),
            ("host: mail1", "host:mail1"),
            ("generation: 3", "generation: 0"),
            ("generation: 3", "generation: 1"),
        ] {
            let altered = text.replace(good, bad);
            assert_ne!(altered, text);
            assert!(BaselineManifest::parse(altered.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_not_read_back_is_never_signed() {
        let none = BaselineManifest { report: Some("none".into()), ..baseline() };
        assert!(none.to_text().is_err());
        let long = BaselineManifest { reason: "x".repeat(MAX_BYTES), ..baseline() };
        assert!(long.to_text().is_err());
        let relative = PolicyManifest { source: Some("policy.toml".into()), ..policy() };
        assert!(relative.to_text().is_err());
        let absent = PolicyManifest { config: Some("other.toml".into()), ..policy() };
        assert!(absent.to_text().is_err());
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", ".", "..", "a\0"] {
            let mut unsafe_name = policy();
            unsafe_name.files.insert(name.to_owned(), [7; 32]);
            assert!(unsafe_name.to_text().is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_real_signer_must_be_named() {
        let key = SecretKey::generate("c").unwrap().public();
        assert_eq!(verify_signed_by(&key.fingerprint(), &key), Ok(()));
        let error = verify_signed_by("SHA256:\u{202e}", &key).unwrap_err();
        assert!(error.to_string().contains("SHA256:\\xe2\\x80\\xae"), "{error}");
    }

    #[test]
    fn no_altered_byte_keeps_a_manifest_as_it_was() {
        let text = baseline().to_text().unwrap();
        for position in 0..text.len() {
            for flip in 1..=255u8 {
                let mut bytes = text.clone().into_bytes();
                bytes[position] ^= flip;
                // It may parse, but as something else, and its digest and signature are others.
                assert_ne!(BaselineManifest::parse(&bytes).as_ref(), Ok(&baseline()));
                assert_ne!(digest(&bytes), digest(text.as_bytes()));
            }
        }
    }

    #[test]
    fn the_order_is_that_of_sort() {
        let mut manifest = Manifest::new();
        for key in ["config", "config-source", "file/a", "file/a b", "file/a.b", "ü"] {
            manifest.set(key, "");
        }
        let text = manifest.to_text();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(text, lines.join("\n") + "\n");
        assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
    }

    proptest! {
        #[test]
        fn any_values_round_trip(
            values in proptest::collection::btree_map(".+", any::<String>(), 1..8)
        ) {
            let manifest = Manifest { values };
            let text = manifest.to_text();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
        }

        #[test]
        fn what_parses_is_written_back_byte_for_byte(
            text in proptest::string::bytes_regex("(?s-u)([a-c]{0,2}(: |:)[ -~\\n\\\\x0-9]{0,4}\\n?){0,4}").unwrap()
        ) {
            if let Ok(manifest) = Manifest::parse(&text) {
                prop_assert_eq!(manifest.to_text().into_bytes(), text);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse(&bytes);
            let _ = BaselineManifest::parse(&bytes);
            let _ = PolicyManifest::parse(&bytes);
        }
    }
}
