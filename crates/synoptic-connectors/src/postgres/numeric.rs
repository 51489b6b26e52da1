//! `numeric`'s base-10000 digits → decimals, exactly or not at all.

use arrow::datatypes::i256;

/// Why a `numeric` is not a decimal of the wanted precision and scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumericError {
    /// Not what the server sends.
    Malformed,
    NaN,
    Infinity,
    /// More digits before the point than there is room for.
    TooLarge,
    /// More digits after the point than there is room for.
    TooFine,
}

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
const BASE: u16 = 10_000;
const DIGITS_IN_GROUP: i32 = 4;

/// 10^k for every k a `u128` holds.
const POWERS: [u128; 39] = {
    let mut powers = [1_u128; 39];
    let mut k = 1;
    while k < 39 {
        powers[k] = powers[k - 1] * 10;
        k += 1;
    }
    powers
};

/// A value taken apart: `digits` are big-endian `u16` pairs of bytes.
struct Parts<'a> {
    negative: bool,
    /// The power of ten, in the wanted scale, of the last group of digits.
    exponent: i32,
    digits: &'a [u8],
}

/// The groups that stay whole, what is left of one cut in the middle with its number of digits, and
/// the power of ten.
type Cut<'a> = (&'a [u8], Option<(u16, i32)>, i32);

impl<'a> Parts<'a> {
    #[inline]
    fn parse(value: &'a [u8], scale: u8) -> Result<Self, NumericError> {
        let Some((header, digits)) = value.split_first_chunk::<8>() else {
            return Err(NumericError::Malformed);
        };
        let groups = u16::from_be_bytes([header[0], header[1]]);
        let weight = i16::from_be_bytes([header[2], header[3]]);
        let sign = u16::from_be_bytes([header[4], header[5]]);
        if digits.len() != 2 * usize::from(groups) {
            return Err(NumericError::Malformed);
        }
        let negative = match sign {
            0 => false,
            NEGATIVE => true,
            NAN => return Err(NumericError::NaN),
            POSITIVE_INFINITY | NEGATIVE_INFINITY => return Err(NumericError::Infinity),
            _ => return Err(NumericError::Malformed),
        };
        let last = i32::from(weight) - i32::from(groups) + 1;
        Ok(Self { negative, exponent: DIGITS_IN_GROUP * last + i32::from(scale), digits })
    }

    #[inline]
    fn groups(digits: &[u8]) -> impl Iterator<Item = u16> + '_ {
        digits.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// The digits without those below the scale, which must be zero, and the power of ten that
    /// what is left has still to be multiplied with. The last group may be cut in the middle.
    fn cut(&self) -> Result<Cut<'a>, NumericError> {
        if self.exponent >= 0 {
            return Ok((self.digits, None, self.exponent));
        }
        // The server sends no group of zeros at the end, so at most one group can be cut.
        let Some((whole, last)) = self.digits.split_last_chunk::<2>() else {
            return Ok((self.digits, None, 0));
        };
        let last = u16::from_be_bytes(*last);
        let dropped = -self.exponent;
        if dropped >= DIGITS_IN_GROUP {
            return Err(NumericError::TooFine);
        }
        let divisor = [1, 10, 100, 1000][dropped.unsigned_abs() as usize];
        if last % divisor != 0 {
            return Err(NumericError::TooFine);
        }
        Ok((whole, Some((last / divisor, DIGITS_IN_GROUP - dropped)), 0))
    }
}

/// The unscaled value at `scale`; `precision` is at most 38.
#[inline]
pub(super) fn decimal128(value: &[u8], precision: u8, scale: u8) -> Result<i128, NumericError> {
    let parts = Parts::parse(value, scale)?;
    if parts.digits.is_empty() {
        return Ok(0);
    }
    let (digits, cut, exponent) = parts.cut()?;
    let mut magnitude = unscaled128(digits)?;
    if let Some((group, digits)) = cut {
        let factor = POWERS[digits.unsigned_abs() as usize];
        magnitude = magnitude
            .checked_mul(factor)
            .and_then(|m| m.checked_add(u128::from(group)))
            .ok_or(NumericError::TooLarge)?;
    } else if exponent > 0 {
        let factor = usize::try_from(exponent).ok().and_then(|e| POWERS.get(e));
        magnitude = factor
            .and_then(|factor| magnitude.checked_mul(*factor))
            .ok_or(NumericError::TooLarge)?;
    }
    let limit = POWERS.get(usize::from(precision)).ok_or(NumericError::TooLarge)?;
    if magnitude >= *limit {
        return Err(NumericError::TooLarge);
    }
    // Below 10^38, so it fits.
    let magnitude = magnitude.cast_signed();
    Ok(if parts.negative { -magnitude } else { magnitude })
}

#[inline]
fn unscaled128(digits: &[u8]) -> Result<u128, NumericError> {
    // Four groups are below 10^16: nearly every value of money stays in a register.
    if digits.len() <= 8 {
        let mut small = 0_u64;
        for group in Parts::groups(digits) {
            if group >= BASE {
                return Err(NumericError::Malformed);
            }
            small = small * u64::from(BASE) + u64::from(group);
        }
        return Ok(u128::from(small));
    }
    let mut magnitude = 0_u128;
    for group in Parts::groups(digits) {
        if group >= BASE {
            return Err(NumericError::Malformed);
        }
        magnitude = magnitude
            .checked_mul(u128::from(BASE))
            .and_then(|m| m.checked_add(u128::from(group)))
            .ok_or(NumericError::TooLarge)?;
    }
    Ok(magnitude)
}

/// The unscaled value at `scale`; `precision` is at most 76.
pub(super) fn decimal256(value: &[u8], precision: u8, scale: u8) -> Result<i256, NumericError> {
    let parts = Parts::parse(value, scale)?;
    if parts.digits.is_empty() {
        return Ok(i256::ZERO);
    }
    let (digits, cut, exponent) = parts.cut()?;
    let mut magnitude = i256::ZERO;
    for group in Parts::groups(digits) {
        if group >= BASE {
            return Err(NumericError::Malformed);
        }
        magnitude = shift256(magnitude, DIGITS_IN_GROUP, group)?;
    }
    if let Some((group, digits)) = cut {
        magnitude = shift256(magnitude, digits, group)?;
    } else if exponent > 0 {
        magnitude = shift256(magnitude, exponent, 0)?;
    }
    if magnitude >= power256(i32::from(precision))? {
        return Err(NumericError::TooLarge);
    }
    Ok(if parts.negative { magnitude.wrapping_neg() } else { magnitude })
}

fn shift256(magnitude: i256, digits: i32, add: u16) -> Result<i256, NumericError> {
    magnitude
        .checked_mul(power256(digits)?)
        .and_then(|m| m.checked_add(i256::from_i128(i128::from(add))))
        .ok_or(NumericError::TooLarge)
}

fn power256(exponent: i32) -> Result<i256, NumericError> {
    let exponent = usize::try_from(exponent).map_err(|_| NumericError::TooLarge)?;
    let low = POWERS[exponent.min(38)].cast_signed();
    let high = POWERS.get(exponent - exponent.min(38)).ok_or(NumericError::TooLarge)?;
    i256::from_i128(low)
        .checked_mul(i256::from_i128(high.cast_signed()))
        .ok_or(NumericError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value as the server sends it.
    fn wire(groups: &[u16], weight: i16, sign: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(groups.len()).unwrap().to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        for group in groups {
            bytes.extend(group.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn values_of_every_shape() {
        let cases: [(&[u16], i16, u8, i128); 9] = [
            (&[], 0, 2, 0),
            (&[1], 0, 2, 100),
            (&[1, 2300], 0, 2, 123),
            (&[12, 3456, 7800], 1, 2, 12_345_678),
            (&[5], -1, 4, 5),
            (&[5000], -1, 1, 5),
            (&[1], 2, 0, 100_000_000),
            (&[1, 0, 1], 2, 0, 100_000_001),
            (&[9999, 9999, 9999, 9999, 9900], 3, 2, 999_999_999_999_999_999),
        ];
        for (groups, weight, scale, expected) in cases {
            let positive = wire(groups, weight, 0);
            assert_eq!(decimal128(&positive, 38, scale), Ok(expected), "{groups:?}");
            assert_eq!(decimal256(&positive, 76, scale), Ok(i256::from_i128(expected)));
            let negative = wire(groups, weight, NEGATIVE);
            assert_eq!(decimal128(&negative, 38, scale), Ok(-expected), "{groups:?}");
            assert_eq!(decimal256(&negative, 76, scale), Ok(i256::from_i128(-expected)));
        }
    }

    #[test]
    fn the_largest_values_fit_and_the_next_do_not() {
        // 38 nines with 10 after the point: 28 before it are seven groups.
        let mut groups = vec![9999; 9];
        groups.push(9900);
        let largest = wire(&groups, 6, 0);
        assert_eq!(decimal128(&largest, 38, 10), Ok(10_i128.pow(38) - 1));
        assert_eq!(decimal128(&wire(&[1], 7, 0), 38, 10), Err(NumericError::TooLarge));
        assert_eq!(decimal128(&wire(&[1], 0, 0), 1, 1), Err(NumericError::TooLarge));
        let wide = wire(&[9999; 19], 18, NEGATIVE);
        let ten_to_76 = power256(76).unwrap();
        assert_eq!(decimal256(&wide, 76, 0), Ok((ten_to_76 - i256::ONE).wrapping_neg()));
        assert_eq!(decimal256(&wire(&[1], 19, 0), 76, 0), Err(NumericError::TooLarge));
        assert_eq!(decimal256(&wire(&[1], i16::MAX, 0), 76, 0), Err(NumericError::TooLarge));
        assert_eq!(decimal128(&wire(&[1], i16::MAX, 0), 38, 0), Err(NumericError::TooLarge));
    }

    #[test]
    fn nothing_is_rounded() {
        assert_eq!(decimal128(&wire(&[1, 2345], 0, 0), 38, 3), Err(NumericError::TooFine));
        assert_eq!(decimal128(&wire(&[1], -9, 0), 38, 18), Err(NumericError::TooFine));
        assert_eq!(decimal256(&wire(&[1], i16::MIN, 0), 76, 76), Err(NumericError::TooFine));
    }

    #[test]
    fn what_is_no_number_says_so() {
        assert_eq!(decimal128(&wire(&[], 0, NAN), 38, 0), Err(NumericError::NaN));
        assert_eq!(
            decimal128(&wire(&[], 0, NEGATIVE_INFINITY), 38, 0),
            Err(NumericError::Infinity)
        );
        assert_eq!(decimal128(&wire(&[10_000], 0, 0), 38, 0), Err(NumericError::Malformed));
        assert_eq!(decimal128(&[0, 1, 0, 0], 38, 0), Err(NumericError::Malformed));
        assert_eq!(decimal256(&wire(&[1], 0, 1), 76, 0), Err(NumericError::Malformed));
    }
}
