//! Sizes and durations as people write them: `50MiB`, `200ms`, `26h`.

use std::time::Duration;

/// Longest duration that is accepted: nothing `fim` waits for takes ten years, and sums of moments
/// and durations stay far from overflowing.
const MAX_DURATION: Duration = Duration::from_secs(3_650 * 86_400);

/// A size in bytes: a whole number with `B`, `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024), `kB`,
/// `MB`, `GB`, `TB` (powers of 1000), or without a unit.
///
/// # Errors
/// What was expected.
pub fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a size such as \"50MiB\", \"1GB\" or \"0\"".to_owned();
    let (number, unit) = split(text).ok_or_else(expected)?;
    let factor = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(expected()),
    };
    // What is stored in a baseline or compared with an offset must fit into 63 bits.
    number.checked_mul(factor).filter(|size| i64::try_from(*size).is_ok()).ok_or_else(expected)
}

/// A duration: a whole number with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || {
        "expected a duration such as \"200ms\", \"30s\", \"15m\", \"1h\" or \"2d\", at most \"3650d\"".to_owned()
    };
    let (number, unit) = split(text).ok_or_else(expected)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(expected)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("50MiB", 50 << 20), ("1GB", 1_000_000_000), ("7 B", 7)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1mib", "9999999999999999999", "99999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [("0s", 0), ("200ms", 200), ("26h", 93_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "h", "1h30m", "4000d", "18446744073709551615d", "١s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
