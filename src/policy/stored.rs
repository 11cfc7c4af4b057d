//! A rule as a signed baseline keeps it: JSON with every name written out.
//!
//! The form is published: what is stored is read by every later version. Attributes, types and
//! severities stand there by name, so that nothing depends on numbers of this program. A key that
//! is not known is an error: a rule that is half understood would watch something else.

use super::{Pattern, Recurse, Rule, When, pattern};
use crate::model::attribute::{Attribute, AttributeSet};
use crate::model::diagnostic::Origin;
use crate::model::facts::{ObjectType, Types};
use crate::model::name;
use crate::model::severity::Severity;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRule {
    name: String,
    origin: StoredOrigin,
    patterns: Vec<StoredPattern>,
    exclude: Vec<StoredPattern>,
    attributes: Vec<String>,
    severity: Severity,
    /// Levels; absent for everything.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    recurse: Option<u32>,
    one_file_system: bool,
    types: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    when_exists: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    when_host: Option<String>,
    email: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPattern {
    text: String,
    origin: StoredOrigin,
}

/// File, line and column.
#[derive(Serialize, Deserialize)]
struct StoredOrigin(String, usize, usize);

impl Rule {
    /// The rule as JSON, on one line; equal rules give equal texts.
    pub fn to_stored(&self) -> String {
        let stored = StoredRule {
            name: self.name.clone(),
            origin: store_origin(&self.origin),
            patterns: self.patterns.iter().map(store_pattern).collect(),
            exclude: self.exclude.iter().map(store_pattern).collect(),
            attributes: self.attributes.keys().into_iter().map(str::to_owned).collect(),
            severity: self.severity,
            recurse: match self.recurse {
                Recurse::All => None,
                Recurse::Levels(levels) => Some(levels),
            },
            one_file_system: self.one_file_system,
            types: ObjectType::ALL
                .into_iter()
                .filter(|object_type| self.types.contains(*object_type))
                .map(|object_type| object_type.word().to_owned())
                .collect(),
            when_exists: self.when.exists.clone(),
            when_host: self.when.host.clone(),
            email: self.email.clone(),
        };
        serde_json::to_string(&stored).expect("strings, numbers and lists are always JSON")
    }

    /// The rule that was stored.
    ///
    /// # Errors
    /// What is wrong with the text: it is no JSON, or from a version that knows more.
    pub fn from_stored(text: &str) -> Result<Rule, String> {
        let stored: StoredRule = serde_json::from_str(text).map_err(|error| {
            format!("not a stored rule: {}", name::escape(error.to_string().as_bytes()))
        })?;
        check("paths", &stored.patterns, pattern::path)?;
        check("exclude", &stored.exclude, pattern::exclude)?;
        let mut attributes = AttributeSet::NONE;
        for key in &stored.attributes {
            let attribute = Attribute::from_key(key)
                .ok_or_else(|| format!("unknown attribute {}", name::escape(key.as_bytes())))?;
            attributes = attributes.with(attribute);
        }
        let mut types = Types::NONE;
        for word in &stored.types {
            let object_type = ObjectType::from_word(word)
                .ok_or_else(|| format!("unknown type {}", name::escape(word.as_bytes())))?;
            types = types.with(object_type);
        }
        Ok(Rule {
            name: stored.name,
            patterns: stored.patterns.into_iter().map(load_pattern).collect(),
            exclude: stored.exclude.into_iter().map(load_pattern).collect(),
            attributes,
            severity: stored.severity,
            recurse: stored.recurse.map_or(Recurse::All, Recurse::Levels),
            one_file_system: stored.one_file_system,
            types,
            when: When { exists: stored.when_exists, host: stored.when_host },
            email: stored.email,
            origin: load_origin(stored.origin),
        })
    }
}

/// Whether patterns are such as a policy can have: one with `..` would lead out of the checked system.
fn check(
    key: &str,
    patterns: &[StoredPattern],
    normal: fn(&str) -> Result<String, String>,
) -> Result<(), String> {
    for pattern in patterns {
        normal(&pattern.text).map_err(|cause| {
            format!(
                "{key} {}: {}",
                name::escape(pattern.text.as_bytes()),
                name::escape(cause.as_bytes())
            )
        })?;
    }
    Ok(())
}

fn store_origin(origin: &Origin) -> StoredOrigin {
    StoredOrigin(origin.file.clone(), origin.line, origin.column)
}

fn load_origin(stored: StoredOrigin) -> Origin {
    Origin { file: stored.0, line: stored.1, column: stored.2 }
}

fn store_pattern(pattern: &Pattern) -> StoredPattern {
    StoredPattern { text: pattern.text.clone(), origin: store_origin(&pattern.origin) }
}

fn load_pattern(stored: StoredPattern) -> Pattern {
    Pattern { text: stored.text, origin: load_origin(stored.origin) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    fn rules() -> impl Strategy<Value = Rule> {
        let origin = (any::<String>(), 1..9_usize, 1..9_usize)
            .prop_map(|(file, line, column)| Origin { file, line, column });
        let patterns = |texts: &'static [&'static str]| {
            let one = (prop::sample::select(texts), origin.clone());
            let one = one.prop_map(|(text, origin)| Pattern { text: text.to_owned(), origin });
            prop::collection::vec(one, 0..3)
        };
        let excluded = patterns(&["*.lock", "/etc/x", "[a-z]?", "/**/y"]);
        let patterns = patterns(&["/", "/etc", "/a \u{e4}/*.b", "/**/x", "/[!a]\\*"]);
        let attributes =
            prop::collection::vec(any::<prop::sample::Index>(), 0..9).prop_map(|picked| {
                let all: Vec<Attribute> = Attribute::all().collect();
                picked.iter().fold(AttributeSet::NONE, |set, index| set.with(*index.get(&all)))
            });
        let types = prop::collection::vec(prop::sample::select(&ObjectType::ALL[..]), 0..4)
            .prop_map(|picked| picked.into_iter().fold(Types::NONE, Types::with));
        let when = (any::<Option<String>>(), any::<Option<String>>())
            .prop_map(|(exists, host)| When { exists, host });
        let reach = (any::<Option<u32>>(), any::<bool>(), prop::sample::select(&Severity::ALL[..]));
        (
            (any::<String>(), patterns, excluded, attributes, types),
            (reach, when, any::<Vec<String>>(), origin),
        )
            .prop_map(
                |((name, patterns, exclude, attributes, types), (reach, when, email, origin))| {
                    Rule {
                        name,
                        patterns,
                        exclude,
                        attributes,
                        severity: reach.2,
                        recurse: reach.0.map_or(Recurse::All, Recurse::Levels),
                        one_file_system: reach.1,
                        types,
                        when,
                        email,
                        origin,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn every_rule_survives_storage(rule in rules()) {
            let text = rule.to_stored();
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(Rule::from_stored(&text), Ok(rule));
        }

        #[test]
        fn arbitrary_text_is_refused_and_no_panic(text in any::<String>()) {
            prop_assert!(Rule::from_stored(&text).is_err());
        }
    }

    #[test]
    fn the_form_is_fixed() {
        let policy = super::super::file::parse(
            "p.toml",
            &super::super::files::MemoryFiles::from([(
                "p.toml",
                "version = 1\n[[rule]]\nname = \"r\"\npaths = [\"/etc\"]\nprofile = \"device\"\nrecurse = 2\n",
            )]),
        )
        .unwrap();
        let text = policy.rules[0].to_stored();
        expect![[r#"{"name":"r","origin":["p.toml",2,1],"patterns":[{"text":"/etc","origin":["p.toml",4,10]}],"exclude":[],"attributes":["type","mode","uid","gid","rdev","link-target"],"severity":"medium","recurse":2,"one_file_system":false,"types":["file","dir","symlink","block","char","fifo","socket"],"email":[]}"#]].assert_eq(&text);
        let newer = text.replace("\"rdev\"", "\"moon-phase\"");
        assert_eq!(Rule::from_stored(&newer), Err("unknown attribute moon-phase".to_owned()));
        for path in ["etc", "", "/etc/../..", "/["] {
            let wrong = text.replace("\"/etc\"", &format!("{path:?}"));
            assert!(Rule::from_stored(&wrong).unwrap_err().starts_with("paths "), "{path}");
        }
        let newer = text.replacen('{', "{\"later\":1,", 1);
        assert!(Rule::from_stored(&newer).unwrap_err().contains("unknown field"));
    }
}
