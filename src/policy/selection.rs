//! Which rule covers a path, and why: the only code that knows precedence, `exclude` and `recurse`.
//!
//! The scan, the watcher and `policy explain` all walk from the root one name at a time, carrying
//! a [`Ground`]: the rule that holds here and the patterns that may still match further down. The
//! rule whose pattern has the most literal leading components decides alone; among equals the later
//! one. What it leaves out is uncovered and never handed to a broader rule.

use super::pattern;
use super::{Recurse, Rule};
use crate::model::attribute::AttributeSet;
use crate::model::change::RuleIndex;
use crate::model::facts::ObjectType;
use crate::model::name;
use globset::GlobMatcher;

/// The position of a pattern in its selection.
pub type PatternIndex = u32;

/// All active rules, ready to be asked.
#[derive(Debug)]
pub struct Selection {
    rules: Vec<Compiled>,
    patterns: Vec<Pattern>,
    exclusions: Vec<Exclusion>,
}

#[derive(Debug)]
struct Compiled {
    bare: Vec<GlobMatcher>,
    recurse: Recurse,
    one_file_system: bool,
    attributes: AttributeSet,
    types: crate::model::facts::Types,
}

/// A pattern of an active rule.
#[derive(Debug)]
pub struct Pattern {
    /// The rule it belongs to.
    pub rule: RuleIndex,
    /// As written, variables expanded.
    pub text: String,
    /// Where it stands among the patterns of its rule.
    pub position: usize,
    literal: u32,
    parts: Vec<Part>,
}

impl Pattern {
    /// Whether it has no glob characters and so names one path.
    pub fn is_literal(&self) -> bool {
        self.literal as usize == self.parts.len()
    }

    /// The path that a literal pattern names.
    pub fn literal_path(&self) -> Option<Vec<u8>> {
        if !self.is_literal() {
            return None;
        }
        let mut path = Vec::new();
        for part in &self.parts {
            if let Part::Literal(literal) = part {
                path.push(b'/');
                path.extend_from_slice(literal);
            }
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }
}

#[derive(Debug)]
struct Exclusion {
    rule: RuleIndex,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Literal(Box<[u8]>),
    Glob(GlobMatcher),
    AnyDepth,
}

impl Part {
    fn matches(&self, entry: &[u8]) -> bool {
        match self {
            Part::Literal(literal) => **literal == *entry,
            Part::Glob(glob) => glob.is_match(name::path(entry)),
            Part::AnyDepth => true,
        }
    }
}

/// What holds in one directory: the rule for it and its entries, and what may match below.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    cover: Option<Cover>,
    /// Patterns of rules that have matched so far, and the part that comes next.
    live: Vec<(PatternIndex, u32)>,
    /// The same for absolute exclusions.
    live_exclusions: Vec<(u32, u32)>,
    /// Rules for which an absolute exclusion holds here and below.
    barred: Vec<RuleIndex>,
}

#[derive(Clone, Copy, Debug)]
struct Cover {
    pattern: PatternIndex,
    levels: u32,
    excluded: bool,
}

/// What a policy says about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No pattern matches it or anything above it.
    Uncovered,
    /// The rule covers it.
    Covered(RuleIndex),
    /// The rule would, but its `exclude` leaves it out.
    Excluded(RuleIndex),
    /// The rule would, but its `recurse` does not reach so far.
    Limited(RuleIndex),
}

/// The verdict on one entry, and the ground below it.
#[derive(Debug)]
pub struct Step {
    /// What the policy says about the entry.
    pub verdict: Verdict,
    /// What holds in it, if it is a directory.
    pub ground: Ground,
    /// Patterns that match the entry itself: it is their start point.
    pub starts: Vec<PatternIndex>,
}

/// Which entries of a directory the policy is interested in.
#[derive(Debug, PartialEq, Eq)]
pub enum Wants {
    /// None.
    Nothing,
    /// Only these, in byte order.
    Names(Vec<Box<[u8]>>),
    /// All, or those that a glob has to see.
    Everything,
    /// All, but only to count what the rule's `recurse` leaves out.
    Count,
}

/// Why a glob could not be used; the policy's reader has refused such globs before.
#[derive(Debug, thiserror::Error)]
#[error("rule \"{rule}\": {glob}: {cause}")]
pub struct BadGlob {
    rule: String,
    glob: String,
    cause: String,
}

fn compile_parts(text: &str) -> Result<Vec<Part>, String> {
    let components = pattern::components(text)?;
    components
        .into_iter()
        .map(|component| match (component.literal, component.text.as_str()) {
            (Some(literal), _) => Ok(Part::Literal(literal.into_bytes().into())),
            (None, "**") => Ok(Part::AnyDepth),
            (None, glob) => Ok(Part::Glob(pattern::matcher(glob)?)),
        })
        .collect()
}

impl Selection {
    /// Prepares the rules for which `active` says so; the others take no part at all.
    pub fn compile(rules: &[Rule], active: &[bool]) -> Result<Selection, BadGlob> {
        let mut selection =
            Selection { rules: Vec::new(), patterns: Vec::new(), exclusions: Vec::new() };
        for (position, rule) in rules.iter().enumerate() {
            let index = RuleIndex(u32::try_from(position).unwrap_or(u32::MAX));
            let bad = |glob: &str, cause: String| BadGlob {
                rule: rule.name.clone(),
                glob: glob.to_owned(),
                cause,
            };
            let is_active = active.get(position).copied().unwrap_or(false);
            let mut bare = Vec::new();
            for pattern in &rule.exclude {
                let text = pattern.text.as_str();
                if text.contains('/') {
                    let parts = compile_parts(text).map_err(|cause| bad(text, cause))?;
                    if is_active {
                        selection.exclusions.push(Exclusion { rule: index, parts });
                    }
                } else {
                    bare.push(pattern::matcher(text).map_err(|cause| bad(text, cause))?);
                }
            }
            for (place, pattern) in rule.patterns.iter().enumerate() {
                let parts = compile_parts(&pattern.text)
                    .map_err(|cause| bad(pattern.text.as_str(), cause))?;
                let literal =
                    parts.iter().take_while(|part| matches!(part, Part::Literal(_))).count();
                if is_active {
                    selection.patterns.push(Pattern {
                        rule: index,
                        text: pattern.text.clone(),
                        position: place,
                        literal: u32::try_from(literal).unwrap_or(u32::MAX),
                        parts,
                    });
                }
            }
            selection.rules.push(Compiled {
                bare,
                recurse: rule.recurse,
                one_file_system: rule.one_file_system,
                attributes: rule.attributes,
                types: rule.types,
            });
        }
        Ok(selection)
    }

    /// The attributes a rule records and compares.
    pub fn attributes(&self, rule: RuleIndex) -> AttributeSet {
        self.rules[rule.get()].attributes
    }

    /// All attributes that any rule with a pattern asks for.
    pub fn all_attributes(&self) -> AttributeSet {
        self.patterns.iter().fold(AttributeSet::NONE, |all, pattern| {
            all.union(self.rules[pattern.rule.get()].attributes)
        })
    }

    /// Whether a rule takes objects of this type.
    pub fn admits(&self, rule: RuleIndex, object_type: ObjectType) -> bool {
        self.rules[rule.get()].types.contains(object_type)
    }

    /// Whether a rule stays on the file system of its start point.
    pub fn stays_on_file_system(&self, rule: RuleIndex) -> bool {
        self.rules[rule.get()].one_file_system
    }

    /// The patterns of all active rules.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The verdict on `/`, and the ground in it.
    pub fn root(&self) -> Step {
        let mut ground = Ground::default();
        let mut starts = Vec::new();
        for index in 0..index_of(self.patterns.len()) {
            self.advance(index, 0, &mut ground.live, &mut starts);
        }
        for (index, exclusion) in self.exclusions.iter().enumerate() {
            match exclusion.parts.is_empty() {
                true => ground.barred.push(exclusion.rule),
                false => ground.live_exclusions.push((index_of(index), 0)),
            }
        }
        self.settle(ground, None, starts, b"")
    }

    /// The verdict on the entry `entry` of a directory with this ground.
    pub fn step(&self, ground: &Ground, entry: &[u8]) -> Step {
        let mut below = Ground { cover: None, barred: ground.barred.clone(), ..Ground::default() };
        let mut starts = Vec::new();
        for &(pattern, part) in &ground.live {
            let parts = &self.patterns[pattern as usize].parts;
            let here = &parts[part as usize];
            if !here.matches(entry) {
                continue;
            }
            if matches!(here, Part::AnyDepth) {
                if part as usize + 1 == parts.len() {
                    push_new(&mut starts, pattern);
                }
                // `**` may take this name and still stand for more; what may follow it is live
                // already, put there by `advance`.
                self.advance(pattern, part, &mut below.live, &mut starts);
            } else {
                self.advance(pattern, part + 1, &mut below.live, &mut starts);
            }
        }
        for &(index, part) in &ground.live_exclusions {
            let exclusion = &self.exclusions[index as usize];
            step_exclusion(exclusion, index, part, entry, &mut below);
        }
        self.settle(below, ground.cover, starts, entry)
    }

    /// Makes `part` of a pattern live, and what a `**` there may stand for.
    fn advance(
        &self,
        pattern: PatternIndex,
        part: u32,
        live: &mut Vec<(PatternIndex, u32)>,
        starts: &mut Vec<PatternIndex>,
    ) {
        let parts = &self.patterns[pattern as usize].parts;
        match parts.get(part as usize) {
            None => push_new(starts, pattern),
            Some(here) => {
                push_new(live, (pattern, part));
                if matches!(here, Part::AnyDepth) && part as usize + 1 < parts.len() {
                    self.advance(pattern, part + 1, live, starts);
                }
            }
        }
    }

    /// Chooses the rule among the inherited one and the start points found here.
    fn settle(
        &self,
        mut ground: Ground,
        inherited: Option<Cover>,
        starts: Vec<PatternIndex>,
        entry: &[u8],
    ) -> Step {
        let inherited =
            inherited.map(|cover| Cover { levels: cover.levels.saturating_add(1), ..cover });
        let mut cover = inherited;
        for &start in &starts {
            let challenger = &self.patterns[start as usize];
            let wins = cover.is_none_or(|holder| {
                let holder = &self.patterns[holder.pattern as usize];
                (challenger.literal, challenger.rule, challenger.position)
                    >= (holder.literal, holder.rule, holder.position)
            });
            if wins {
                // A glob that matches at each depth goes on excluding what it excluded above.
                let excluded =
                    inherited.is_some_and(|above| above.pattern == start && above.excluded);
                cover = Some(Cover { pattern: start, levels: 0, excluded });
            }
        }
        let verdict = match &mut cover {
            None => Verdict::Uncovered,
            Some(cover) => {
                let pattern = &self.patterns[cover.pattern as usize];
                let rule = &self.rules[pattern.rule.get()];
                let named = cover.levels == 0 && pattern.is_literal();
                if !named && rule.bare.iter().any(|glob| glob.is_match(name::path(entry))) {
                    cover.excluded = true;
                }
                if cover.excluded || ground.barred.contains(&pattern.rule) {
                    Verdict::Excluded(pattern.rule)
                } else {
                    match rule.recurse {
                        Recurse::Levels(limit) if cover.levels > limit => {
                            Verdict::Limited(pattern.rule)
                        }
                        Recurse::Levels(_) | Recurse::All => Verdict::Covered(pattern.rule),
                    }
                }
            }
        };
        ground.cover = cover;
        Step { verdict, ground, starts }
    }

    /// The pattern by which this ground is covered, whatever it leaves out.
    pub fn pattern_of(&self, ground: &Ground) -> Option<&Pattern> {
        ground.cover.map(|cover| &self.patterns[cover.pattern as usize])
    }

    /// The rule that covers entries of a directory with this ground, if one reaches so far.
    pub fn reaches(&self, ground: &Ground) -> Option<RuleIndex> {
        let cover = ground.cover?;
        let rule = self.patterns[cover.pattern as usize].rule;
        let left_out = cover.excluded || ground.barred.contains(&rule);
        let reaches = match self.rules[rule.get()].recurse {
            Recurse::All => true,
            Recurse::Levels(limit) => cover.levels < limit,
        };
        (reaches && !left_out).then_some(rule)
    }

    /// Which entries of a directory with this ground have to be looked at.
    pub fn wants(&self, ground: &Ground) -> Wants {
        if self.reaches(ground).is_some() {
            return Wants::Everything;
        }
        let counts = ground.cover.is_some_and(|cover| {
            let rule = self.patterns[cover.pattern as usize].rule;
            let left_out = cover.excluded || ground.barred.contains(&rule);
            match self.rules[rule.get()].recurse {
                Recurse::All => false,
                Recurse::Levels(limit) => !left_out && cover.levels == limit,
            }
        });
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for &(pattern, part) in &ground.live {
            match &self.patterns[pattern as usize].parts[part as usize] {
                Part::Literal(literal) => names.push(literal.clone()),
                Part::Glob(_) | Part::AnyDepth => return Wants::Everything,
            }
        }
        names.sort_unstable();
        names.dedup();
        match names.is_empty() {
            true if counts => Wants::Count,
            true => Wants::Nothing,
            false => Wants::Names(names),
        }
    }

    /// Patterns that need an entry of exactly this name here to go on, and the name.
    pub fn expected<'a>(
        &'a self,
        ground: &'a Ground,
    ) -> impl Iterator<Item = (PatternIndex, &'a [u8])> {
        ground.live.iter().filter_map(|&(pattern, part)| {
            match &self.patterns[pattern as usize].parts[part as usize] {
                Part::Literal(literal) => Some((pattern, &**literal)),
                Part::Glob(_) | Part::AnyDepth => None,
            }
        })
    }

    /// Patterns that may still match below a directory with this ground.
    pub fn pending<'a>(&'a self, ground: &'a Ground) -> impl Iterator<Item = PatternIndex> + 'a {
        ground.live.iter().map(|&(pattern, _)| pattern)
    }

    /// The verdict on an absolute path, and the pattern that decides.
    pub fn explain(&self, path: &[u8]) -> (Verdict, Option<&Pattern>) {
        let mut step = self.root();
        for component in name::components(path) {
            step = self.step(&step.ground, component);
        }
        (step.verdict, self.pattern_of(&step.ground))
    }

    /// Whether something below an absolute path is covered, or a pattern may match there.
    pub fn leads_below(&self, path: &[u8]) -> bool {
        let mut step = self.root();
        for component in name::components(path) {
            step = self.step(&step.ground, component);
        }
        self.reaches(&step.ground).is_some() || self.pending(&step.ground).next().is_some()
    }

    /// The ground on a file system that is entered only by literal paths: what is left of `ground`
    /// in its root, `depth` components below `/`.
    pub fn on_foreign_ground(&self, ground: &Ground, depth: u32) -> Ground {
        let lies_here = |pattern: PatternIndex| self.patterns[pattern as usize].literal >= depth;
        let mut kept = ground.clone();
        kept.cover = kept.cover.filter(|cover| lies_here(cover.pattern));
        kept.live.retain(|&(pattern, _)| lies_here(pattern));
        kept
    }

    /// The ground of a directory below which the rule that holds ends, because it stays on its
    /// file system.
    pub fn without_cover(&self, ground: &Ground) -> Ground {
        Ground { cover: None, ..ground.clone() }
    }
}

fn step_exclusion(exclusion: &Exclusion, index: u32, part: u32, entry: &[u8], below: &mut Ground) {
    // `**` may stand for nothing: try this name against what follows it as well.
    let mut at = part as usize;
    while let Some(here) = exclusion.parts.get(at) {
        let any_depth = matches!(here, Part::AnyDepth);
        if here.matches(entry) {
            let next = if any_depth { at } else { at + 1 };
            if next == exclusion.parts.len() || (any_depth && at + 1 == exclusion.parts.len()) {
                push_new(&mut below.barred, exclusion.rule);
            } else {
                push_new(&mut below.live_exclusions, (index, index_of(next)));
            }
        }
        if !any_depth {
            break;
        }
        at += 1;
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn index_of(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Pattern as Written, When};
    use super::*;
    use crate::model::attribute::Attribute;
    use crate::model::diagnostic::Origin;
    use crate::model::facts::Types;
    use crate::model::severity::Severity;

    fn written(texts: &[&str]) -> Vec<Written> {
        let origin = Origin { file: "p".into(), line: 1, column: 1 };
        texts
            .iter()
            .map(|text| Written { text: (*text).to_owned(), origin: origin.clone() })
            .collect()
    }

    fn rule(name: &str, paths: &[&str], exclude: &[&str], recurse: Recurse) -> Rule {
        Rule {
            name: name.to_owned(),
            patterns: written(paths),
            exclude: written(exclude),
            attributes: AttributeSet::of(&[Attribute::Type]),
            severity: Severity::Medium,
            recurse,
            one_file_system: false,
            types: Types::ALL,
            when: When::default(),
            email: Vec::new(),
            origin: Origin { file: "p".into(), line: 1, column: 1 },
        }
    }

    fn selection(rules: &[Rule]) -> Selection {
        Selection::compile(rules, &vec![true; rules.len()]).unwrap()
    }

    fn ask(rules: &[Rule], path: &str) -> String {
        let selection = selection(rules);
        let name = |rule: RuleIndex| rules[rule.get()].name.clone();
        match selection.explain(path.as_bytes()).0 {
            Verdict::Uncovered => "-".to_owned(),
            Verdict::Covered(rule) => name(rule),
            Verdict::Excluded(rule) => format!("excluded by {}", name(rule)),
            Verdict::Limited(rule) => format!("limited by {}", name(rule)),
        }
    }

    #[test]
    fn the_most_literal_components_win_and_then_the_later_rule() {
        let rules = [
            rule("etc", &["/etc"], &[], Recurse::All),
            rule("ssh", &["/etc/ssh"], &[], Recurse::All),
            rule("cron", &["/etc/cron.*"], &[], Recurse::All),
            rule("late", &["/etc/*.conf"], &[], Recurse::All),
        ];
        for (path, expected) in [
            ("/etc", "etc"),
            ("/etc/passwd", "etc"),
            ("/etc/ssh", "ssh"),
            ("/etc/ssh/sshd_config", "ssh"),
            ("/etc/cron.d", "cron"),
            ("/etc/cron.d/x", "cron"),
            ("/etc/sysctl.conf", "late"),
            ("/var", "-"),
            ("/", "-"),
            ("/etcetera", "-"),
        ] {
            assert_eq!(ask(&rules, path), expected, "{path}");
        }
    }

    #[test]
    fn what_a_rule_leaves_out_is_not_handed_to_a_broader_one() {
        let rules = [
            rule("all", &["/"], &[], Recurse::All),
            rule("one", &["/etc"], &[], Recurse::Levels(0)),
            rule("two", &["/srv"], &["*.lock", "/srv/tmp", "/srv/a/*/x"], Recurse::Levels(3)),
        ];
        for (path, expected) in [
            ("/", "all"),
            ("/usr/bin/ls", "all"),
            ("/etc", "one"),
            ("/etc/passwd", "limited by one"),
            ("/srv/a.lock", "excluded by two"),
            ("/srv/d.lock/below", "excluded by two"),
            ("/srv/tmp", "excluded by two"),
            ("/srv/tmp/below/it", "excluded by two"),
            ("/srv/tmpfile", "two"),
            ("/srv/a/b/x", "excluded by two"),
            ("/srv/a/b/y", "two"),
            ("/srv/a/b/y/z", "limited by two"),
        ] {
            assert_eq!(ask(&rules, path), expected, "{path}");
        }
    }

    #[test]
    fn globs_match_objects_and_recursion_starts_at_each_match() {
        let rules = [
            rule("homes", &["/home/*/.ssh"], &[], Recurse::Levels(1)),
            rule("deep", &["/srv/**/conf"], &["secret"], Recurse::All),
            rule("tail", &["/opt/**"], &["*.tmp"], Recurse::All),
        ];
        for (path, expected) in [
            ("/home/ann/.ssh", "homes"),
            ("/home/ann/.ssh/authorized_keys", "homes"),
            ("/home/ann/.ssh/d/x", "limited by homes"),
            ("/home/ann", "-"),
            ("/srv/conf", "deep"),
            ("/srv/a/b/conf/x/y", "deep"),
            ("/srv/a/conf/secret/z", "excluded by deep"),
            ("/srv/a/b", "-"),
            ("/opt", "-"),
            ("/opt/x", "tail"),
            ("/opt/x/y/z", "tail"),
            ("/opt/x.tmp/z", "excluded by tail"),
        ] {
            assert_eq!(ask(&rules, path), expected, "{path}");
        }
    }

    #[test]
    fn a_literal_start_point_is_not_excluded_by_a_bare_name() {
        let rules = [rule("r", &["/run/x.lock", "/run/y*"], &["*.lock"], Recurse::All)];
        assert_eq!(ask(&rules, "/run/x.lock"), "r");
        assert_eq!(ask(&rules, "/run/y.lock"), "excluded by r");
    }

    #[test]
    fn only_wanted_names_are_looked_at_above_start_points() {
        let rules = [
            rule("a", &["/etc/passwd", "/var/qmail/control"], &[], Recurse::All),
            rule("b", &["/var/log/*.log"], &[], Recurse::All),
        ];
        let selection = selection(&rules);
        let root = selection.root().ground;
        let names =
            |list: &[&str]| Wants::Names(list.iter().map(|name| name.as_bytes().into()).collect());
        assert_eq!(selection.wants(&root), names(&["etc", "var"]));
        let var = selection.step(&root, b"var").ground;
        assert_eq!(selection.wants(&var), names(&["log", "qmail"]));
        let log = selection.step(&var, b"log").ground;
        assert_eq!(selection.wants(&log), Wants::Everything);
        assert_eq!(selection.wants(&selection.step(&root, b"usr").ground), Wants::Nothing);
    }

    #[test]
    fn an_inactive_rule_takes_no_part() {
        let rules = [
            rule("all", &["/"], &[], Recurse::All),
            rule("off", &["/etc"], &[], Recurse::Levels(0)),
        ];
        let selection = Selection::compile(&rules, &[true, false]).unwrap();
        assert_eq!(selection.explain(b"/etc/passwd").0, Verdict::Covered(RuleIndex(0)));
    }
}
