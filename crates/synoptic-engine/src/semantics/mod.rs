//! What SQL means where DataFusion's own operators would mean something else: values that do not
//! fit, floating-point numbers, keys of two types, what rows are ordered by.
//!
//! Rules and functions over plans and expressions. They know neither sources nor sessions.

mod extremes;
mod float_keys;
mod floats;
mod join_types;
mod not_null;
mod orders;
mod overflow;
mod small_decimals;
mod sum;

pub(crate) use extremes::ordered_extremes;
pub(crate) use floats::{FloatConditions, FloatOperators};
pub(crate) use join_types::JoinTypes;
pub(crate) use orders::GroupsOnce;
pub(crate) use overflow::{CheckedConstants, checked};
pub(crate) use sum::checked_sum;
