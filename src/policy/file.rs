//! Policy files: their schema, their includes, and every error in them in one go.
//!
//! Reading has two steps. First each file is read for what it says by itself, and its includes
//! after it; then, when all variables and profiles of all files are known, rules are expanded.
//! Variables, profiles and names of rules are one namespace over all files. The rules of a file
//! stand before those of its includes, which therefore decide among equals. An include is relative
//! to the file that names it and stays below the policy's directory: what is signed and stored is
//! that directory's files, under their names.
//!
//! The text may be hostile: files, sizes and counts are bounded, and nothing recurses along it.

use super::files::{Files, MAX_FILE_BYTES, MemoryFiles};
use super::pattern;
use super::profile::{Definition, Profiles};
use super::variables::Variables;
use super::{Pattern, Policy, Recurse, Rule, Source, When};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::diagnostic::{Diagnostic, Origin};
use crate::model::facts::{ObjectType, Types};
use crate::model::name;
use crate::model::severity::Severity;
use crate::text::{Located, Problems, Sheet, Table, mail_address, quote};
use std::collections::HashMap;

/// How many files a policy may consist of.
const MAX_FILES: usize = 1_000;

/// Size of all files of a policy, in bytes.
const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;

/// How many rules and patterns a policy may have, together.
const MAX_ITEMS: usize = 100_000;

/// How deep includes may be nested.
const MAX_DEPTH: usize = 16;

/// Longest name of a rule, in characters: it stands in every report and alert.
const MAX_NAME: usize = 200;

/// Reads the policy in file `main` and everything it includes.
///
/// # Errors
/// Everything that is wrong in any of the files.
pub fn parse(main: &str, files: &dyn Files) -> Result<Policy, Vec<Diagnostic>> {
    parse_assuming(None, main, files)
}

/// The same with another meaning of every built-in profile: with none and with all attributes this
/// gives the bounds of what any version can have made of the text.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_assuming(
    built_in: Option<AttributeSet>,
    main: &str,
    files: &dyn Files,
) -> Result<Policy, Vec<Diagnostic>> {
    let mut reader = Reader {
        files,
        problems: Problems::new(),
        sources: Vec::new(),
        total_bytes: 0,
        items: 0,
        is_full: false,
        variables: Variables::default(),
        profiles: Profiles::assuming(built_in),
        drafts: Vec::new(),
    };
    let start = Origin { file: files.show(main), line: 1, column: 1 };
    reader.load(main, &start, &mut Vec::new());
    reader.finish()
}

/// The policy built into the program.
///
/// # Panics
/// If that policy is wrong, which is an error in the program.
pub fn built_in() -> Policy {
    let files = MemoryFiles::from([("default.toml", include_str!("../../policy/default.toml"))]);
    parse("default.toml", &files).expect("the built-in policy is tested")
}

/// What is known while files are read.
struct Reader<'f> {
    files: &'f dyn Files,
    problems: Problems,
    sources: Vec<Source>,
    total_bytes: usize,
    items: usize,
    /// Whether a bound was exceeded, which is told once.
    is_full: bool,
    variables: Variables,
    profiles: Profiles,
    drafts: Vec<Draft>,
}

/// A rule as written.
struct Draft {
    origin: Origin,
    name: Option<Located<String>>,
    paths: Vec<Located<String>>,
    exclude: Vec<Located<String>>,
    profile: Option<Located<String>>,
    add: AttributeSet,
    remove: AttributeSet,
    severity: Severity,
    recurse: Recurse,
    one_file_system: bool,
    types: Types,
    exists: Option<Located<String>>,
    host: Option<Located<String>>,
    email: Vec<String>,
}

impl Reader<'_> {
    /// Reads one file and then what it includes; `asked` is where that was asked for, and `chain`
    /// the files that include it.
    fn load(&mut self, name: &str, asked: &Origin, chain: &mut Vec<String>) {
        let text = match self.files.read(name) {
            Ok(text) if text.len() as u64 > MAX_FILE_BYTES => {
                let message =
                    format!("{}: larger than {MAX_FILE_BYTES} bytes", self.files.show(name));
                return self.problems.report(asked, message, None);
            }
            Ok(text) => text,
            Err(cause) => {
                let cause = name::escape(cause.as_bytes());
                let message = if chain.is_empty() {
                    format!("cannot be read: {cause}")
                } else {
                    format!("cannot include {}: {cause}", self.files.show(name))
                };
                return self.problems.report(asked, message, None);
            }
        };
        self.total_bytes = self.total_bytes.saturating_add(text.len());
        if self.total_bytes > MAX_TOTAL_BYTES {
            return self
                .report_full(asked, &format!("a policy of more than {MAX_TOTAL_BYTES} bytes"));
        }
        if self.sources.len() >= MAX_FILES {
            return self.report_full(asked, &format!("a policy of more than {MAX_FILES} files"));
        }
        let includes = self.read_file(name, &text, chain.is_empty());
        self.sources.push(Source { name: name.to_owned(), text });
        chain.push(name.to_owned());
        for include in includes {
            self.include(&include, chain);
        }
        chain.pop();
    }

    fn include(&mut self, include: &Located<String>, chain: &mut Vec<String>) {
        let including = chain.last().map_or("", String::as_str);
        let listed = resolve_include(including, &include.value).and_then(|target| match target {
            Target::File(name) => Ok(vec![name]),
            Target::Glob(glob) => {
                self.files.list(&glob).map_err(|cause| name::escape(cause.as_bytes()))
            }
        });
        let mut names = match listed {
            Ok(names) => names,
            Err(message) => {
                return self.problems.report(&include.origin, format!("include: {message}"), None);
            }
        };
        names.sort();
        for name in names {
            if self.is_full {
                return;
            }
            if let Some(start) = chain.iter().position(|link| *link == name) {
                let links: Vec<String> = chain[start..]
                    .iter()
                    .chain([&name])
                    .map(|link| name::escape(link.as_bytes()))
                    .collect();
                let message = format!("include loop: {}", links.join(" -> "));
                self.problems.report(&include.origin, message, None);
            } else if chain.len() >= MAX_DEPTH {
                let message = format!("includes nested deeper than {MAX_DEPTH}");
                self.problems.report(&include.origin, message, None);
            } else if !self.sources.iter().any(|source| source.name == name) {
                self.load(&name, &include.origin, chain);
            }
        }
    }

    fn report_full(&mut self, origin: &Origin, what: &str) {
        if !self.is_full {
            self.is_full = true;
            self.problems.report(origin, format!("{what} is not accepted"), None);
        }
    }

    /// Reads what a file says by itself, and returns what it includes.
    fn read_file(&mut self, name: &str, text: &str, is_main: bool) -> Vec<Located<String>> {
        let mut problems = std::mem::take(&mut self.problems);
        let (mut sheet, mut root) = Sheet::read(&self.files.show(name), text, &mut problems);
        read_version(&mut sheet, &mut root, is_main);
        let includes = sheet.strings(&mut root, "include").unwrap_or_default();
        let mut variables = Vec::new();
        if let Some(table) = sheet.table(&mut root, "variables") {
            variables = sheet.free_strings(table);
        }
        let mut definitions = Vec::new();
        if let Some(table) = sheet.table(&mut root, "profiles") {
            for (name, table) in sheet.free_tables(table) {
                definitions.push(read_profile(&mut sheet, name, table));
            }
        }
        let mut drafts = Vec::new();
        for table in sheet.tables(&mut root, "rule") {
            drafts.push(read_rule(&mut sheet, table));
        }
        sheet.close(root);
        self.problems = problems;

        for (name, value) in variables {
            self.variables.define(name, value, &mut self.problems);
        }
        for definition in definitions {
            self.profiles.define(definition, &mut self.problems);
        }
        for draft in drafts {
            self.items += 1 + draft.paths.len() + draft.exclude.len();
            if self.items > MAX_ITEMS {
                let what = format!("a policy of more than {MAX_ITEMS} rules and patterns");
                self.report_full(&draft.origin, &what);
                break;
            }
            self.drafts.push(draft);
        }
        includes
    }

    /// Expands the rules, now that everything they may refer to is known.
    fn finish(mut self) -> Result<Policy, Vec<Diagnostic>> {
        self.variables.resolve(&mut self.problems);
        self.profiles.resolve(&mut self.problems);
        let drafts = std::mem::take(&mut self.drafts);
        let mut names: HashMap<String, Origin> = HashMap::new();
        let mut patterns: HashMap<String, Origin> = HashMap::new();
        let mut rules = Vec::with_capacity(drafts.len());
        for draft in drafts {
            if let Some(name) = &draft.name {
                let shown = quote(&name.value);
                self.check_unique(&mut names, name, || format!("two rules have the name {shown}"));
            }
            let rule = self.expand(draft);
            for pattern in rule.iter().flat_map(|rule| &rule.patterns) {
                let located =
                    Located { value: pattern.text.clone(), origin: pattern.origin.clone() };
                let shown = quote(&pattern.text);
                self.check_unique(&mut patterns, &located, || {
                    format!("the pattern {shown} is given twice")
                });
            }
            rules.extend(rule);
        }
        if self.problems.is_empty() {
            Ok(Policy { rules, sources: self.sources })
        } else {
            Err(self.problems.into_diagnostics())
        }
    }

    fn check_unique(
        &mut self,
        seen: &mut HashMap<String, Origin>,
        given: &Located<String>,
        message: impl Fn() -> String,
    ) {
        match seen.get(&given.value) {
            Some(first) => {
                let message = format!("{}; first at {first}", message());
                self.problems.report(&given.origin, message, None);
            }
            None => {
                seen.insert(given.value.clone(), given.origin.clone());
            }
        }
    }

    /// The rule that a draft stands for; `None` if it has no name, which was reported.
    fn expand(&mut self, draft: Draft) -> Option<Rule> {
        let patterns = self.expand_patterns("paths", &draft.paths, pattern::path);
        let exclude = self.expand_patterns("exclude", &draft.exclude, pattern::exclude);
        let exists = self.expand_one("exists", draft.exists.as_ref(), pattern::literal_path);
        let host = self.expand_one("host", draft.host.as_ref(), pattern::host);
        let base = match &draft.profile {
            Some(profile) => self.profiles.find(profile, &mut self.problems),
            None => Some(AttributeSet::NONE),
        };
        Some(Rule {
            name: draft.name?.value,
            patterns,
            exclude,
            attributes: base.unwrap_or_default().union(draft.add).minus(draft.remove),
            severity: draft.severity,
            recurse: draft.recurse,
            one_file_system: draft.one_file_system,
            types: draft.types,
            when: When { exists, host },
            email: draft.email,
            origin: draft.origin,
        })
    }

    fn expand_patterns(
        &mut self,
        key: &str,
        given: &[Located<String>],
        check: fn(&str) -> Result<String, String>,
    ) -> Vec<Pattern> {
        given
            .iter()
            .filter_map(|one| {
                let text = self.expand_one(key, Some(one), check)?;
                Some(Pattern { text, origin: one.origin.clone() })
            })
            .collect()
    }

    fn expand_one(
        &mut self,
        key: &str,
        given: Option<&Located<String>>,
        check: fn(&str) -> Result<String, String>,
    ) -> Option<String> {
        let given = given?;
        let text = self.variables.expand(given, &mut self.problems)?;
        match check(&text) {
            Ok(normal) => Some(normal),
            Err(message) => {
                let message = format!("{key}: {}: {message}", quote(&text));
                self.problems.report(&given.origin, message, None);
                None
            }
        }
    }
}

/// What an include names.
enum Target {
    File(String),
    Glob(String),
}

/// The file or glob that an include names, relative to the policy's directory.
fn resolve_include(including: &str, include: &str) -> Result<Target, String> {
    let shown = quote(include);
    if include.starts_with('/') {
        return Err(format!("{shown}: absolute path; expected one relative to this file"));
    }
    if include.len() > pattern::MAX_BYTES {
        return Err(format!("{shown}: too long"));
    }
    let mut glob: Vec<String> = Vec::new();
    let mut literal = Some(Vec::new());
    let dir = including.rsplit_once('/').map_or("", |(dir, _)| dir);
    for part in dir.split('/').filter(|part| !part.is_empty()) {
        glob.push(pattern::escape(part));
        literal.as_mut().into_iter().for_each(|names| names.push(part.to_owned()));
    }
    let components =
        pattern::components(include).map_err(|message| format!("{shown}: {message}"))?;
    let mut is_empty = true;
    for component in components {
        match &component.literal {
            Some(name) if name == "." => continue,
            Some(name) if name == ".." => {
                return Err(format!(
                    "{shown}: leaves the policy's directory, which includes cannot"
                ));
            }
            Some(name) => literal.as_mut().into_iter().for_each(|names| names.push(name.clone())),
            None if component.text == "**" => {
                return Err(format!("{shown}: ** is not understood in includes"));
            }
            None => {
                pattern::matcher(&component.text)
                    .map_err(|message| format!("{shown}: {message}"))?;
                literal = None;
            }
        }
        glob.push(component.text);
        is_empty = false;
    }
    if is_empty {
        return Err(format!("{shown}: expected the name of a file"));
    }
    Ok(match literal {
        Some(names) => Target::File(names.join("/")),
        None => Target::Glob(glob.join("/")),
    })
}

fn read_version<'t>(sheet: &mut Sheet<'t, '_>, root: &mut Table<'t>, is_required: bool) {
    if root.has("version") {
        sheet.number(root, "version", "1", 1..=1);
    } else if is_required {
        sheet.report_missing(root, "version", "version = 1");
    }
}

fn read_profile<'t>(
    sheet: &mut Sheet<'t, '_>,
    name: Located<String>,
    mut table: Table<'t>,
) -> Definition {
    let is_plain = !name.value.is_empty()
        && name.value.chars().count() <= MAX_NAME
        && !name.value.chars().any(name::must_escape);
    if !is_plain {
        sheet.report(
            &name.origin,
            format!("profile {}: expected a name of visible characters", quote(&name.value)),
        );
    }
    let extends = sheet.string(&mut table, "extends");
    let (add, remove) = read_attributes(sheet, &mut table);
    sheet.close(table);
    Definition { name, extends, add, remove }
}

/// Reads `add` and `remove`.
fn read_attributes<'t>(
    sheet: &mut Sheet<'t, '_>,
    table: &mut Table<'t>,
) -> (AttributeSet, AttributeSet) {
    let known: Vec<(&str, Attribute)> =
        Attribute::all().map(|attribute| (attribute.key(), attribute)).collect();
    let mut sets = [AttributeSet::NONE; 2];
    for (set, key) in sets.iter_mut().zip(["add", "remove"]) {
        for given in sheet.strings(table, key).unwrap_or_default() {
            if let Some(attribute) = sheet.word(&given, "attribute", &known) {
                *set = set.with(attribute);
            }
        }
    }
    let [add, remove] = sets;
    if add.intersects(remove) {
        let both = add.intersection(remove).keys().join(", ");
        let origin = sheet.origin(table);
        sheet.report(&origin, format!("{both}: both added and removed"));
    }
    (add, remove)
}

fn read_rule<'t>(sheet: &mut Sheet<'t, '_>, mut table: Table<'t>) -> Draft {
    let origin = sheet.origin(&table);
    let name = read_name(sheet, &mut table);
    let paths = read_paths(sheet, &mut table);
    let exclude = sheet.strings(&mut table, "exclude").unwrap_or_default();
    let has_base = table.has("profile") || table.has("add");
    let profile = sheet.string(&mut table, "profile");
    if !has_base {
        sheet.report_missing(&table, "profile", "a profile, or attributes in add");
    }
    let (add, remove) = read_attributes(sheet, &mut table);
    let severities = Severity::ALL.map(|severity| (severity.word(), severity));
    let severity = sheet
        .string(&mut table, "severity")
        .and_then(|given| sheet.word(&given, "severity", &severities))
        .unwrap_or(Severity::Medium);
    let recurse = match sheet.boolean_or_number(&mut table, "recurse") {
        None | Some(Ok(true)) => Recurse::All,
        Some(Ok(false)) => Recurse::Levels(0),
        Some(Err(levels)) => Recurse::Levels(levels),
    };
    let one_file_system = sheet.boolean(&mut table, "one-file-system").unwrap_or(false);
    let types = read_types(sheet, &mut table);
    let (exists, host) = read_when(sheet, &mut table);
    let email = sheet
        .strings(&mut table, "email")
        .unwrap_or_default()
        .iter()
        .filter_map(|given| sheet.parsed("email", given, mail_address))
        .collect();
    sheet.close(table);
    Draft {
        origin,
        name,
        paths,
        exclude,
        profile,
        add,
        remove,
        severity,
        recurse,
        one_file_system,
        types,
        exists,
        host,
        email,
    }
}

fn read_name<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Option<Located<String>> {
    if !table.has("name") {
        sheet.report_missing(table, "name", "a name that no other rule has");
        return None;
    }
    let name = sheet.string(table, "name")?;
    let text = &name.value;
    let problem = if text.trim().is_empty() {
        "empty; expected a name that no other rule has"
    } else if text.chars().any(name::must_escape) {
        "a control, invisible or direction-changing character in a name"
    } else if text.chars().count() > MAX_NAME {
        "longer than 200 characters"
    } else {
        return Some(name);
    };
    sheet.report(&name.origin, format!("name: {}: {problem}", quote(text)));
    None
}

fn read_paths<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Vec<Located<String>> {
    let expected = "absolute paths or globs";
    if !table.has("paths") {
        sheet.report_missing(table, "paths", expected);
    }
    sheet.some_strings(table, "paths", expected).unwrap_or_default()
}

fn read_types<'t>(sheet: &mut Sheet<'t, '_>, table: &mut Table<'t>) -> Types {
    let known = ObjectType::ALL.map(|object_type| (object_type.word(), object_type));
    let Some(given) = sheet.some_strings(table, "types", "types of objects") else {
        return Types::ALL;
    };
    given.iter().filter_map(|word| sheet.word(word, "type", &known)).fold(Types::NONE, Types::with)
}

/// Reads the condition: `exists` and `host`.
fn read_when<'t>(
    sheet: &mut Sheet<'t, '_>,
    table: &mut Table<'t>,
) -> (Option<Located<String>>, Option<Located<String>>) {
    let Some(mut when) = sheet.table(table, "when") else { return (None, None) };
    if !when.has("exists") && !when.has("host") {
        sheet.report_missing(&when, "when", "exists or host");
    }
    let exists = sheet.string(&mut when, "exists");
    let host = sheet.string(&mut when, "host");
    sheet.close(when);
    (exists, host)
}

#[cfg(test)]
mod tests {
    use super::super::files::DiskFiles;
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn shown(result: Result<Policy, Vec<Diagnostic>>) -> String {
        match result {
            Ok(policy) => policy.rules.iter().map(Rule::to_stored).collect::<Vec<_>>().join("\n"),
            Err(problems) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
        }
    }

    fn check<const N: usize>(files: [(&str, &str); N], expected: &Expect) {
        expected.assert_eq(&shown(parse("p.toml", &MemoryFiles::from(files))));
    }

    #[test]
    fn the_policies_that_come_with_the_program_are_right() {
        let policy = built_in();
        assert_eq!(policy.sources[0].name, "default.toml");
        assert!(policy.rules.len() > 20);
        let qmail = include_str!("../../policy/qmail.toml");
        let alone = parse("qmail.toml", &MemoryFiles::from([("qmail.toml", qmail)]));
        assert_eq!(shown(alone.map(|_| Policy { rules: Vec::new(), sources: Vec::new() })), "");
        let both =
            format!("include = [\"qmail.toml\"]\n{}", include_str!("../../policy/default.toml"));
        let both =
            parse("p.toml", &MemoryFiles::from([("p.toml", both.as_str()), ("qmail.toml", qmail)]));
        assert_eq!(shown(both.map(|_| Policy { rules: Vec::new(), sources: Vec::new() })), "");
    }

    #[test]
    fn severe_rules_of_the_built_in_policy_have_no_glob_that_may_match_nothing() {
        for rule in built_in().rules.iter().filter(|rule| rule.severity >= Severity::High) {
            for pattern in &rule.patterns {
                assert!(!pattern.text.contains(['*', '?', '[']), "{}", pattern.text);
            }
        }
    }

    #[test]
    fn severe_rules_read_content() {
        let qmail = MemoryFiles::from([("q.toml", include_str!("../../policy/qmail.toml"))]);
        let rules = built_in().rules.into_iter().chain(parse("q.toml", &qmail).unwrap().rules);
        for rule in rules.filter(|rule| rule.severity >= Severity::High) {
            assert!(rule.attributes.contains(Attribute::Content), "{}", rule.name);
        }
    }

    #[test]
    fn the_built_in_policy_defines_no_attribute_that_changes_by_itself() {
        let restless = AttributeSet::of(&[Attribute::Atime, Attribute::Device]);
        for rule in built_in().rules {
            assert!(!rule.attributes.intersects(restless), "{}", rule.name);
        }
    }

    #[test]
    fn a_rule_is_expanded() {
        check(
            [(
                "p.toml",
                r#"version = 1
[variables]
base = "${var}/qmail"
var = "/var//"
[profiles.mail-binary]
extends = "light"
add = ["sha256"]
[profiles.light]
extends = "dynamic"
remove = ["mount"]
[[rule]]
name = "qmail"
paths = ["${base}/./control/", "/etc/cron.*"]
exclude = ["*.lock", "${base}/control/tmp/"]
profile = "mail-binary"
add = ["sha512"]
remove = ["inode"]
severity = "critical"
recurse = 1
one-file-system = true
types = ["file", "dir"]
when = { exists = "${base}/", host = "mail*" }
email = ["postmaster"]
[[rule]]
name = "bare"
paths = ["/"]
profile = "ignore-all"
recurse = false
[[rule]]
name = "added only"
paths = ["/srv"]
add = ["content"]
"#,
            )],
            &expect![[r#"
                {"name":"qmail","origin":["p.toml",11,1],"patterns":[{"text":"/var/qmail/control","origin":["p.toml",13,10]},{"text":"/etc/cron.*","origin":["p.toml",13,32]}],"exclude":[{"text":"*.lock","origin":["p.toml",14,12]},{"text":"/var/qmail/control/tmp","origin":["p.toml",14,22]}],"attributes":["type","mode","uid","gid","nlink","rdev","link-target","sha256","sha512"],"severity":"critical","recurse":1,"one_file_system":true,"types":["file","dir"],"when_exists":"/var/qmail","when_host":"mail*","email":["postmaster"]}
                {"name":"bare","origin":["p.toml",24,1],"patterns":[{"text":"/","origin":["p.toml",26,10]}],"exclude":[],"attributes":[],"severity":"medium","recurse":0,"one_file_system":false,"types":["file","dir","symlink","block","char","fifo","socket"],"email":[]}
                {"name":"added only","origin":["p.toml",29,1],"patterns":[{"text":"/srv","origin":["p.toml",31,10]}],"exclude":[],"attributes":["content"],"severity":"medium","one_file_system":false,"types":["file","dir","symlink","block","char","fifo","socket"],"email":[]}"#]],
        );
    }

    #[test]
    fn every_error_is_told_with_its_place() {
        check(
            [
                (
                    "p.toml",
                    r#"version = 2
include = ["d/*.toml", "none.toml", "/abs.toml", "d/../x.toml", "**/x", "d/[", "p.*"]
inclde = []
[variables]
a = "${b}"
b = "${c}/x"
c = "${a}"
bad = 7
"sp ace" = "x"
open = "${a"
dup = "1"
[profiles.binary]
extends = "config"
[profiles.x]
extends = "y"
[profiles.y]
extends = "x"
[profiles.z]
extends = "confg"
add = ["contant", "mode"]
remove = ["mode"]
exteds = "binary"
[profiles]
flat = 1
[[rule]]
name = "twice"
paths = ["/etc/", "/usr/{a,b}", "etc", "/a/../b", "/x[", "${undefned}/y", "${c}", "/a**"]
profile = "confg"
severity = "hihg"
types = ["file", "socet"]
recurse = -1
[[rule]]
name = "twice"
paths = ["/etc", 5]
exclude = ["a/b", "[", "/ok/*"]
profle = "config"
add = ["atime"]
when = { exist = "/x" }
email = ["-t"]
one-file-system = "no"
[[rule]]
name = "bidi \u202e"
paths = []
recurse = "deep"
types = []
[[rule]]
when = {}
"#,
                ),
                (
                    "d/a.toml",
                    "[variables]\ndup = \"2\"\n[[rule]]\nname = \"a\"\npaths = \"/a\"\nprofile = 1\nwhen = { exists = \"rel\", host = \"{\" }\n",
                ),
                (
                    "d/b.toml",
                    "include = [\"../p.toml\", \"a.toml\", \"c.toml\"]\nversion = \"1\"\n",
                ),
                ("d/c.toml", "include = [\"b.toml\"]\nx = []\n"),
            ],
            &expect![[r#"
                p.toml:1:11: version: expected 1, found the number 2
                p.toml:2:24: cannot include none.toml: no such file
                p.toml:2:37: include: "/abs.toml": absolute path; expected one relative to this file
                p.toml:2:50: include: "d/../x.toml": leaves the policy's directory, which includes cannot
                p.toml:2:65: include: "**/x": ** is not understood in includes
                p.toml:2:73: include: "d/[": unclosed [; write \[ for the character itself
                p.toml:2:80: include loop: p.toml -> p.toml
                p.toml:3:1: unknown key "inclde"; did you mean "include"?
                p.toml:5:5: variables refer to each other: "a" -> "b" -> "c" -> "a"
                p.toml:8:7: bad: expected a string, found the number 7
                p.toml:9:1: variable "sp ace": expected a name of letters, digits, - and _
                p.toml:10:8: ${ without a }; write $\{ for the characters themselves
                p.toml:12:11: profile "binary" is built in; choose another name
                p.toml:14:11: profiles extend each other: "x" -> "y" -> "x"
                p.toml:18:1: mode: both added and removed
                p.toml:19:11: unknown profile "confg"; did you mean "config"?
                p.toml:20:8: unknown attribute "contant"; did you mean "content"?
                p.toml:22:1: unknown key "exteds" in [z]; did you mean "extends"?
                p.toml:24:8: flat: expected a table, found the number 1
                p.toml:27:19: paths: "/usr/{a,b}": {: alternatives are not understood; write each pattern for itself, or \{ for the character
                p.toml:27:33: paths: "etc": relative path; expected an absolute one
                p.toml:27:40: paths: "/a/../b": ".." in a path; write the path without it
                p.toml:27:51: paths: "/x[": unclosed [; write \[ for the character itself
                p.toml:27:58: undefined variable "undefned"
                p.toml:27:83: paths: "/a**": ** stands for whole components only, as in /a/**/b
                p.toml:28:11: unknown profile "confg"; did you mean "config"?
                p.toml:29:12: unknown severity "hihg"; expected info, low, medium, high or critical; did you mean "high"?
                p.toml:30:18: unknown type "socet"; expected file, dir, symlink, block, char, fifo or socket; did you mean "socket"?
                p.toml:31:11: recurse: expected true, false or a number of levels, found the number -1
                p.toml:33:8: two rules have the name "twice"; first at p.toml:26:8
                p.toml:34:10: the pattern "/etc" is given twice; first at p.toml:27:10
                p.toml:34:18: paths: expected a string, found the number 5
                p.toml:35:12: exclude: "a/b": expected a bare name or an absolute path
                p.toml:35:19: exclude: "[": unclosed [; write \[ for the character itself
                p.toml:36:1: unknown key "profle" in [rule]; did you mean "profile"?
                p.toml:38:8: when: missing; expected exists or host
                p.toml:38:10: unknown key "exist" in [when]; did you mean "exists"?
                p.toml:39:10: email: expected a mail address, found "-t"
                p.toml:40:19: one-file-system: expected true or false, found the string "no"
                p.toml:41:1: profile: missing; expected a profile, or attributes in add
                p.toml:42:8: name: "bidi \xe2\x80\xae": a control, invisible or direction-changing character in a name
                p.toml:43:9: paths: empty; expected absolute paths or globs
                p.toml:44:11: recurse: expected true, false or a number of levels, found the string "deep"
                p.toml:45:9: types: empty; expected types of objects
                p.toml:46:1: name: missing; expected a name that no other rule has
                p.toml:46:1: paths: missing; expected absolute paths or globs
                p.toml:46:1: profile: missing; expected a profile, or attributes in add
                p.toml:47:8: when: missing; expected exists or host
                d/a.toml:2:1: variable "dup" is defined twice; first at p.toml:11:7
                d/a.toml:5:9: paths: expected an array of strings, found the string "/a"
                d/a.toml:6:11: profile: expected a string, found the number 1
                d/a.toml:7:19: exists: "rel": relative path; expected an absolute one
                d/a.toml:7:33: host: "{": {: alternatives are not understood; write each pattern for itself, or \{ for the character
                d/b.toml:1:12: include: "../p.toml": leaves the policy's directory, which includes cannot
                d/b.toml:2:11: version: expected 1, found the string "1"
                d/c.toml:1:12: include loop: d/b.toml -> d/c.toml -> d/b.toml
                d/c.toml:2:1: unknown key "x""#]],
        );
    }

    #[test]
    fn syntax_errors_do_not_raise_others() {
        check(
            [
                (
                    "p.toml",
                    "include = [\"q.toml\"]\nversion = 1\n[variables\nv = \"/v\"\n[[rule]]\nname = \"a\"\npaths = [\"${v}\"]\nprofile = \"p\"\n",
                ),
                ("q.toml", "[[rule]]\nname = \"b\nprofile = \"config\"\nseverity = \"hi\"\n"),
            ],
            &expect![[r#"
                p.toml:3:11: unclosed table, expected `]`
                q.toml:2:10: invalid basic string, expected `"`
                q.toml:4:12: unknown severity "hi"; expected info, low, medium, high or critical; did you mean "high"?"#]],
        );
    }

    #[test]
    fn includes_are_read_once_and_in_order() {
        let rule = |name: &str| {
            format!("[[rule]]\nname = \"{name}\"\npaths = [\"/{name}\"]\nprofile = \"mine\"\n")
        };
        let main = format!(
            "version = 1\ninclude = [\"d/*.toml\", \"d/1.toml\", \"no/*.toml\"]\n{}",
            rule("main")
        );
        let one = format!("include = [\"sub/x.toml\"]\n{}", rule("one"));
        let two = format!("{}[profiles.mine]\nadd = [\"mode\"]\n", rule("two"));
        let files = MemoryFiles::from([
            ("p.toml", main.as_str()),
            ("d/2.toml", &two),
            ("d/1.toml", &one),
            ("d/.hidden.toml", "not toml"),
            ("d/sub/x.toml", &rule("sub")),
        ]);
        let policy = parse("p.toml", &files).unwrap();
        let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["main", "one", "sub", "two"]);
        let sources: Vec<&str> = policy.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(sources, ["p.toml", "d/1.toml", "d/sub/x.toml", "d/2.toml"]);
        assert_eq!(policy.sources[1].text, one);

        // The stored copy means the same.
        let copy = policy.sources.iter().map(|source| (source.name.clone(), source.text.clone()));
        let again = parse("p.toml", &MemoryFiles(copy.collect())).unwrap();
        assert_eq!(again.rules, policy.rules);
    }

    #[test]
    fn files_on_disk_are_shown_as_they_can_be_found() {
        let scratch = tempfile::tempdir().unwrap();
        let files = DiskFiles { dir: scratch.path().to_owned() };
        let top = name::show(scratch.path());
        assert_eq!(
            shown(parse("p.toml", &files)),
            format!("{top}/p.toml:1:1: cannot be read: No such file or directory (os error 2)")
        );
        std::fs::write(
            scratch.path().join("p.toml"),
            "version = 1\ninclude = ['d.toml', 'e.toml']\n",
        )
        .unwrap();
        std::fs::create_dir(scratch.path().join("d.toml")).unwrap();
        assert_eq!(
            shown(parse("p.toml", &files)).replace(&top, "TOP"),
            "TOP/p.toml:2:12: cannot include TOP/d.toml: not a regular file\n\
             TOP/p.toml:2:22: cannot include TOP/e.toml: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let deep: Vec<(String, String)> = (0..40)
            .map(|n| (format!("{n}.toml"), format!("version = 1\ninclude = ['{}.toml']", n + 1)))
            .collect();
        let message = shown(parse("0.toml", &MemoryFiles(deep.into_iter().collect())));
        assert_eq!(message, "15.toml:2:12: includes nested deeper than 16");

        let mut wide = MemoryFiles::from([("p.toml", "version = 1\ninclude = ['d/*']")]);
        wide.0.extend((0..1_200).map(|n| (format!("d/{n}"), String::new())));
        let message = shown(parse("p.toml", &wide));
        assert_eq!(message, "p.toml:2:12: a policy of more than 1000 files is not accepted");

        let paths: Vec<String> = (0..100_001).map(|n| format!("'/{n}'")).collect();
        let many = format!(
            "version = 1\n[[rule]]\nname = 'n'\nprofile = 'config'\npaths = [{}]",
            paths.join(",")
        );
        let message = shown(parse("p.toml", &MemoryFiles::from([("p.toml", many.as_str())])));
        assert_eq!(
            message,
            "p.toml:2:1: a policy of more than 100000 rules and patterns is not accepted"
        );

        let large = "#".repeat(4 * 1024 * 1024 + 1);
        let message = shown(parse("p.toml", &MemoryFiles::from([("p.toml", large.as_str())])));
        assert_eq!(message, "p.toml:1:1: p.toml: larger than 4194304 bytes");
    }

    #[test]
    fn a_few_bytes_cannot_stand_for_many() {
        let mut text = String::from("version = 1\n[variables]\nv0 = '/aaaaaaaaaaaaaaaa'\n");
        for n in 1..60 {
            text += &format!("v{n} = '${{v{0}}}${{v{0}}}'\n", n - 1);
        }
        let message = shown(parse("p.toml", &MemoryFiles::from([("p.toml", text.as_str())])));
        assert_eq!(message, "p.toml:15:7: longer than 65536 bytes with its variables");

        let mut chain =
            String::from("version = 1\n[variables]\nv0 = '/a'\n[profiles.p0]\nadd = ['mode']\n");
        for n in 1..20_000 {
            chain += &format!("[profiles.p{n}]\nextends = 'p{}'\n", n - 1);
        }
        chain += "[[rule]]\nname = 'n'\npaths = ['/x']\nprofile = 'p19999'\n";
        let policy = parse("p.toml", &MemoryFiles::from([("p.toml", chain.as_str())])).unwrap();
        assert_eq!(policy.rules[0].attributes.keys(), ["mode"]);

        let mut chain = String::from("version = 1\n[variables]\nv20000 = '/a'\n");
        for n in 0..20_000 {
            chain += &format!("v{n} = '${{v{}}}'\n", n + 1);
        }
        chain += "[[rule]]\nname = 'n'\npaths = ['${v0}/x']\nprofile = 'config'\n";
        let policy = parse("p.toml", &MemoryFiles::from([("p.toml", chain.as_str())])).unwrap();
        assert_eq!(policy.rules[0].patterns[0].text, "/a/x");
    }

    const LINES: &[&str] = &[
        "version = 1",
        "include = ['*']",
        "include = ['q']",
        "[variables]",
        "v = '${v}'",
        "w = '/${v}'",
        "[profiles.p]",
        "extends = 'p'",
        "extends = 'q'",
        "[profiles.q]",
        "[[rule]]",
        "name = 'n'",
        "paths = ['/a', '${w}', '[']",
        "paths = [",
        "]",
        "exclude = ['${', '*']",
        "profile = 'p'",
        "add = ['mode', 'x']",
        "when = { exists = '/' }",
        "recurse = 3",
        "name = \"\"\"",
        "[rule]",
        "x.y.z = 1",
    ];

    proptest! {
        #[test]
        fn arbitrary_text_is_no_panic(text in any::<String>()) {
            let _ = parse("p", &MemoryFiles::from([("p", text.as_str())]));
        }

        #[test]
        fn shuffled_lines_are_no_panic(
            main in prop::collection::vec(prop::sample::select(LINES), 0..25),
            other in prop::collection::vec(prop::sample::select(LINES), 0..10),
        ) {
            let (main, other) = (main.join("\n"), other.join("\n"));
            let _ = parse("p", &MemoryFiles::from([("p", main.as_str()), ("q", other.as_str())]));
        }
    }
}
