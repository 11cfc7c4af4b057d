//! The one judgement: is what was observed what was recorded? Pure and total.
//!
//! It errs on the side of telling: a recorded value that cannot be seen any more is a difference.
//! What was never recorded is no difference: only `accept` and `policy apply` record.

use crate::model::attribute::{Attribute, AttributeSet, Judge};
use crate::model::change::Difference;
use crate::model::record::Record;
use crate::model::value::Value;

/// The attributes among `compared` in which `observed` differs from `recorded`, in the table's
/// order.
///
/// `recorded` is `None` for an object that could not be examined when it was recorded: everything
/// about it is new. So it is of an object of another type, since hardly any attribute of the two has
/// the same meaning; and whoever accepts it has to have seen what it is.
pub fn compare(
    recorded: Option<&Record>,
    observed: &Record,
    compared: AttributeSet,
) -> Vec<Difference> {
    let all_new = |compared: AttributeSet| {
        let new = observed.iter().filter(move |(attribute, _)| compared.contains(*attribute));
        new.map(|(attribute, value)| Difference {
            attribute,
            old: None,
            new: Some(value.clone()),
            follows: false,
        })
    };
    let Some(recorded) = recorded else { return all_new(compared).collect() };
    if compared.contains(Attribute::Type) && recorded.object_type() != observed.object_type() {
        let of_type = Difference {
            attribute: Attribute::Type,
            old: Some(Value::Type(recorded.object_type())),
            new: Some(Value::Type(observed.object_type())),
            follows: false,
        };
        let others = all_new(compared.without(Attribute::Type));
        return std::iter::once(of_type).chain(others).collect();
    }
    let mut differences = Vec::new();
    for attribute in compared.intersection(recorded.known()).iter() {
        let old = recorded.get(attribute);
        let new = observed.get(attribute);
        if differs(attribute, old, new) {
            differences.push(Difference {
                attribute,
                old: old.cloned(),
                new: new.cloned(),
                follows: false,
            });
        }
    }
    differences
}

fn differs(attribute: Attribute, old: Option<&Value>, new: Option<&Value>) -> bool {
    match (attribute.row().judge, old, new) {
        (Judge::NeverShrinks, Some(Value::Number(old)), Some(Value::Number(new))) => new < old,
        (Judge::NeverShrinks | Judge::Equal, old, new) => old != new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::facts::ObjectType;

    fn record(object_type: ObjectType, values: &[(Attribute, u64)]) -> Record {
        let mut record = Record::new(object_type);
        for (attribute, value) in values {
            record.push(*attribute, Value::Number(*value));
        }
        record
    }

    fn names(recorded: Option<&Record>, observed: &Record, compared: &[Attribute]) -> String {
        let found = compare(recorded, observed, AttributeSet::of(compared));
        found.iter().map(|d| d.attribute.key()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_compared_and_recorded_attributes_count() {
        use Attribute::{GrowingSize, Mode, Size, Type, Uid};
        let old = record(ObjectType::File, &[(Mode, 0o644), (Size, 10)]);
        let new = record(ObjectType::File, &[(Mode, 0o666), (Uid, 5), (Size, 11)]);
        assert_eq!(names(Some(&old), &new, &[Mode, Uid, Size]), "mode size");
        assert_eq!(names(Some(&old), &new, &[Uid]), "");
        assert_eq!(names(Some(&old), &old, &[Mode, Uid, Size]), "");
        let grown = record(ObjectType::File, &[(GrowingSize, 11)]);
        let small = record(ObjectType::File, &[(GrowingSize, 10)]);
        assert_eq!(names(Some(&small), &grown, &[GrowingSize]), "");
        assert_eq!(names(Some(&grown), &small, &[GrowingSize]), "growing-size");
        let dir = record(ObjectType::Dir, &[(Mode, 0o755)]);
        assert_eq!(names(Some(&old), &dir, &[Type, Mode, Size]), "type mode");
        let same = compare(Some(&old), &dir, AttributeSet::of(&[Type, Mode]));
        assert_eq!((&same[1].old, &same[1].new), (&None, &Some(Value::Number(0o755))));
        assert_eq!(names(Some(&old), &dir, &[Mode, Size]), "mode size");
        assert_eq!(names(None, &new, &[Mode, Size]), "mode size");
    }
}
