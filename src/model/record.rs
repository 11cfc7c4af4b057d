//! A record: the values of an object at one moment, for a set of attributes.

use super::attribute::{Attribute, AttributeSet, TABLE};
use super::facts::{Facts, ObjectType};
use super::value::Value;

/// The values of an object at one moment; at most one for each attribute, in the table's order.
///
/// The type is always known, whether or not it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    object_type: ObjectType,
    known: AttributeSet,
    values: Vec<Value>,
}

impl Record {
    /// An object of which only the type is known.
    pub fn new(object_type: ObjectType) -> Record {
        Record { object_type, known: AttributeSet::NONE, values: Vec::new() }
    }

    /// The same, with room for so many values.
    pub fn with_capacity(object_type: ObjectType, values: usize) -> Record {
        Record { values: Vec::with_capacity(values), ..Record::new(object_type) }
    }

    /// What `facts` say about the attributes of `wanted` that apply to the object.
    pub fn from_facts(facts: &Facts, wanted: AttributeSet) -> Record {
        let object_type = facts.stat.object_type;
        let mut record = Record {
            object_type,
            known: AttributeSet::NONE,
            values: Vec::with_capacity(wanted.len()),
        };
        for attribute in wanted.iter() {
            let row = attribute.row();
            if !row.types.contains(object_type) {
                continue;
            }
            if let Some(value) = (row.read)(facts) {
                record.known = record.known.with(attribute);
                record.values.push(value.to_value());
            }
        }
        record
    }

    /// Adds the value of an attribute that comes after all that are known, in the table's order.
    ///
    /// # Panics
    /// If the order is not kept, which is an error in the program.
    pub fn push(&mut self, attribute: Attribute, value: Value) {
        assert!(self.known.is_below(attribute), "values are added in the table's order");
        self.known = self.known.with(attribute);
        self.values.push(value);
    }

    /// The object's type.
    pub fn object_type(&self) -> ObjectType {
        self.object_type
    }

    /// The attributes that have a value.
    pub fn known(&self) -> AttributeSet {
        self.known
    }

    /// The value of an attribute.
    pub fn get(&self, attribute: Attribute) -> Option<&Value> {
        self.known.position(attribute).map(|position| &self.values[position])
    }

    /// A number; `None` also for values of another kind.
    pub fn number(&self, attribute: Attribute) -> Option<u64> {
        match self.get(attribute) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The attributes and their values, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, &Value)> {
        self.known.iter().zip(&self.values)
    }

    /// The record with only the attributes of `kept`.
    pub fn restricted(&self, kept: AttributeSet) -> Record {
        let mut record = Record::new(self.object_type);
        for (attribute, value) in self.iter().filter(|(attribute, _)| kept.contains(*attribute)) {
            record.push(attribute, value.clone());
        }
        record
    }
}

/// Checks that the rows stand in the order of their numbers, which records rely on.
const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].attribute as usize == index);
        index += 1;
    }
};
