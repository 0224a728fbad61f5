//! How big each part of an upload is, when nobody knows how long the stream will be.
//!
//! A multipart upload has at most 10,000 parts, and parts are what memory holds: small ones are cheap, large ones
//! are needed for long streams. So parts begin small and grow in steps. In units of the first part's size:
//!
//! | parts | each | sum so far | with 16 MiB |
//! | --- | --- | --- | --- |
//! | 2000 | 1 | 2,000 | 31 GiB |
//! | 2000 | 2 | 6,000 | 94 GiB |
//! | 2000 | 4 | 14,000 | 219 GiB |
//! | 1000 | 16 | 30,000 | 469 GiB |
//! | 1000 | 32 | 62,000 | 969 GiB |
//! | 1000 | 96 | 158,000 | 2.4 TiB |
//! | 1000 | 192 | 350,000 | 5.3 TiB |
//!
//! Up to 200 GB no part is larger than 64 MiB, which keeps the memory below the promised 300 MB.

/// The most parts of an upload, by S3's rules.
pub const MOST_PARTS: u32 = 10_000;
/// The smallest part that S3 takes, but for the last.
pub const SMALLEST_PART: u64 = 5 * 1024 * 1024;
/// The largest part that S3 takes.
pub const LARGEST_PART: u64 = 5 * 1024 * 1024 * 1024;

const STEPS: [(u32, u64); 7] =
    [(2000, 1), (4000, 2), (6000, 4), (7000, 16), (8000, 32), (9000, 96), (10_000, 192)];

/// Sum of the steps: how many units all parts hold together.
const ALL_UNITS: u64 = 350_000;

/// Bytes of part `number`, counted from 1; `None` after the last one.
pub fn part_size(unit: u64, number: u32) -> Option<u64> {
    let (_, times) = STEPS.iter().find(|(last, _)| number <= *last)?;
    Some((unit * times).min(LARGEST_PART))
}

/// The unit for a stream of about so many bytes: parts as even as can be, a tenth of the numbers in reserve.
pub fn unit_for(expected: u64, least: u64) -> u64 {
    let even = expected.div_ceil(u64::from(MOST_PARTS) * 9 / 10);
    // The steps make an upload of even parts longer than it must be; that is the reserve for a wrong guess.
    let unit = if even <= least { least } else { expected.div_ceil(14_000).max(least) };
    unit.next_multiple_of(1024 * 1024).min(LARGEST_PART / 192)
}

/// The most bytes that an upload of this unit can hold.
pub fn most_bytes(unit: u64) -> u64 {
    (unit * ALL_UNITS).min(LARGEST_PART * u64::from(MOST_PARTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sum(unit: u64) -> u64 {
        (1..=MOST_PARTS).map(|number| part_size(unit, number).unwrap()).sum()
    }

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes_and_no_part_is_too_large() {
        assert!(sum(16 * MIB) >= 5 << 40);
        assert_eq!(sum(16 * MIB), most_bytes(16 * MIB));
        assert!((1..=MOST_PARTS).all(|number| part_size(16 * MIB, number).unwrap() <= LARGEST_PART));
        assert_eq!(part_size(16 * MIB, MOST_PARTS + 1), None);
    }

    #[test]
    fn parts_stay_at_64_mib_until_200_gb() {
        let mut stored = 0;
        for number in 1.. {
            let size = part_size(16 * MIB, number).unwrap();
            if stored >= 200_000_000_000 {
                break;
            }
            assert!(size <= 64 * MIB, "part {number}");
            stored += size;
        }
    }

    #[test]
    fn parts_never_shrink_and_are_whole_units() {
        let sizes: Vec<u64> = (1..=MOST_PARTS).map(|number| part_size(5 * MIB, number).unwrap()).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(sizes.iter().all(|size| size % (5 * MIB) == 0));
    }

    #[test]
    fn a_known_length_always_fits() {
        for exponent in 0..=42 {
            let expected = 1u64 << exponent;
            let unit = unit_for(expected, 5 * MIB);
            assert!(most_bytes(unit) >= expected, "{expected}");
        }
    }
}
