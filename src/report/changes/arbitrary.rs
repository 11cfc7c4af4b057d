//! Changes for tests of properties.

use super::super::{AttributeEntry, AttributeValue, ChangeEntry, ChangeKind, forms};
use crate::model::severity::Severity;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c/]{0,6}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}

fn value() -> impl Strategy<Value = (Option<AttributeValue>, Option<String>)> {
    prop_oneof![
        Just((None, None)),
        Just((Some(AttributeValue::None), None)),
        any::<u64>().prop_map(|number| (Some(AttributeValue::Number(number)), None)),
        bytes().prop_map(|bytes| {
            let (text, base64) = forms(&bytes);
            (Some(AttributeValue::Text(text)), base64)
        }),
    ]
}

fn attribute() -> impl Strategy<Value = AttributeEntry> {
    ("[a-z]{1,8}", value(), value(), any::<bool>()).prop_map(
        |(name, (old, old_bytes), (new, new_bytes), follows)| AttributeEntry {
            name,
            old,
            old_bytes,
            new,
            new_bytes,
            follows,
        },
    )
}

/// Any change; paths and severities often meet.
pub(crate) fn change() -> impl Strategy<Value = ChangeEntry> {
    (
        bytes(),
        prop::sample::select(vec![ChangeKind::Added, ChangeKind::Removed, ChangeKind::Changed]),
        prop::option::of("[a-z]{1,6}"),
        "[ab]",
        prop::sample::select(Severity::ALL.to_vec()),
        any::<bool>(),
        "2026-11-[0-2][0-9]T02:15:00.000Z",
        any::<bool>(),
        prop::collection::vec(attribute(), 0..4),
    )
        .prop_map(
            |(path, kind, object_type, rule, severity, new, first_seen, follows, attributes)| {
                let mut full = b"/".to_vec();
                full.extend(path);
                let (path, path_bytes) = forms(&full);
                ChangeEntry {
                    path,
                    path_bytes,
                    kind,
                    object_type,
                    rule,
                    severity,
                    new,
                    first_seen,
                    follows,
                    attributes,
                }
            },
        )
}
