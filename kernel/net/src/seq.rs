//! Arithmetic of TCP's 32-bit sequence numbers, which wrap (RFC 9293 §3.4).

/// `a < b`.
#[inline]
pub(crate) const fn lt(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `a <= b`.
#[inline]
pub(crate) const fn le(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) <= 0
}

/// `a > b`.
#[inline]
pub(crate) const fn gt(a: u32, b: u32) -> bool {
    lt(b, a)
}

/// `a >= b`.
#[inline]
pub(crate) const fn ge(a: u32, b: u32) -> bool {
    le(b, a)
}

/// The later of two.
#[inline]
pub(crate) const fn max(a: u32, b: u32) -> u32 {
    if lt(a, b) { b } else { a }
}

/// The earlier of two.
#[inline]
pub(crate) const fn min(a: u32, b: u32) -> u32 {
    if lt(a, b) { a } else { b }
}

/// `low <= x < high`.
#[inline]
pub(crate) const fn within(x: u32, low: u32, high: u32) -> bool {
    x.wrapping_sub(low) < high.wrapping_sub(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        assert!(lt(u32::MAX, 0) && gt(5, u32::MAX - 5) && le(7, 7) && ge(7, 7));
        assert_eq!(max(u32::MAX, 3), 3);
        assert_eq!(min(u32::MAX, 3), u32::MAX);
        assert!(within(1, u32::MAX, 4) && !within(4, u32::MAX, 4));
    }
}
