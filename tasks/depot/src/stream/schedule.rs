//! How big each part of an upload is, when nobody knows how long the stream will be.
//!
//! A multipart upload has at most 10,000 parts, and parts are what memory holds: small ones are cheap, large ones
//! are needed for long streams. So parts begin small and grow in steps. In units of the first part's size:
//!
//! | parts | each | sum so far | with 5 MiB |
//! | --- | --- | --- | --- |
//! | 1000 | 1 | 1,000 | 4.9 GiB |
//! | 1000 | 2 | 3,000 | 15 GiB |
//! | 1000 | 4 | 7,000 | 34 GiB |
//! | 600 | 6 | 10,600 | 52 GiB |
//! | 2300 | 12 | 38,200 | 187 GiB |
//! | 900 | 32 | 67,000 | 327 GiB |
//! | 900 | 80 | 139,000 | 679 GiB |
//! | 1000 | 200 | 339,000 | 1.6 TiB |
//! | 1300 | 560 | 1,067,000 | 5.1 TiB |
//!
//! Up to 200 GB no part is larger than 60 MiB, of which four are in memory: below the promised 300 MB.
//!
//! Blocks, of which each has a sum of its own, are what a reader holds. They stay small when parts do not.

/// The most parts of an upload, by S3's rules.
pub const MAX_PARTS: u32 = 10_000;
/// The smallest part that S3 takes, but for the last.
pub const SMALLEST_PART: u64 = 5 * 1024 * 1024;
/// The largest part that S3 takes.
pub const LARGEST_PART: u64 = 5 * 1024 * 1024 * 1024;
/// A stream that may be no longer than this goes by one request: a WAL segment of 16 MiB, and what age and zstd add.
pub const AT_ONCE: u64 = 17 * 1024 * 1024;

/// Up to which part, and how many units each has.
const STEPS: [(u32, u64); 9] = [
    (1000, 1),
    (2000, 2),
    (3000, 4),
    (3600, 6),
    (5900, 12),
    (6800, 32),
    (7700, 80),
    (8700, 200),
    (MAX_PARTS, 560),
];
/// Units of all parts before those that no expected stream should reach: they are the reserve for a wrong guess.
const EXPECTED_UNITS: u64 = 38_200;
/// A manifest holds no more sums than about this many.
const MAX_BLOCKS: u64 = 2_000_000;

/// How a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the first parts; the others are multiples.
    pub unit: u64,
    /// Bytes of a block; the unit is a multiple.
    pub block: u64,
    /// All parts but the last have the size of the first.
    pub even: bool,
}

/// The largest block, where parts are even: a reader holds six.
const LARGEST_BLOCK: u64 = 64 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// How to cut a stream into parts of one size, as some servers want them: at least `least`, and enough for what is
/// expected, with a tenth to spare.
pub fn even(expected: Option<u64>, least: u64) -> Sizes {
    let expected = expected.unwrap_or(0);
    let wanted = (expected / u64::from(MAX_PARTS)).saturating_add(expected / 100_000);
    let unit = if wanted > least { wanted.next_multiple_of(MIB) } else { least }.min(LARGEST_PART);
    // Whole blocks, as few as can be.
    let count = (unit.div_ceil(LARGEST_BLOCK)..).find(|count| unit.is_multiple_of(*count)).unwrap_or(1);
    Sizes { unit, block: unit / count, even: true }
}

/// How to cut a stream of about so many bytes, if anybody knows, into first parts of at least so many.
pub fn sizes(expected: Option<u64>, least: u64) -> Sizes {
    let expected = expected.unwrap_or(0);
    let block = least * (1 + expected / (least * MAX_BLOCKS));
    let unit = expected.div_ceil(EXPECTED_UNITS).max(block).next_multiple_of(block);
    Sizes { unit: unit.min(LARGEST_PART / block * block), block, even: false }
}

impl Sizes {
    /// Bytes of part `number`, counted from 1; `None` after the last one.
    pub fn part(self, number: u32) -> Option<u64> {
        if self.even {
            return (number <= MAX_PARTS).then_some(self.unit);
        }
        let (_, times) = STEPS.iter().find(|(last, _)| number <= *last)?;
        // Whole blocks also where S3 sets the bound.
        Some((self.unit * times).min(LARGEST_PART / self.block * self.block))
    }

    /// The most bytes that an upload can hold.
    pub fn max_bytes(self) -> u64 {
        (1..=MAX_PARTS).filter_map(|number| self.part(number)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn of(unit: u64) -> Sizes {
        sizes(None, unit)
    }

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes_and_no_part_is_too_large() {
        assert!(of(SMALLEST_PART).max_bytes() >= 5 << 40);
        for unit in [SMALLEST_PART, 16 * MIB, 64 * MIB] {
            assert!((1..=MAX_PARTS).all(|number| of(unit).part(number).unwrap() <= LARGEST_PART));
        }
        assert_eq!(of(SMALLEST_PART).part(MAX_PARTS + 1), None);
    }

    #[test]
    fn parts_stay_at_60_mib_until_200_gb() {
        let mut stored = 0;
        for number in 1.. {
            let size = of(SMALLEST_PART).part(number).unwrap();
            if stored >= 200_000_000_000 {
                break;
            }
            assert!(size <= 60 * MIB, "part {number}");
            stored += size;
        }
    }

    #[test]
    fn parts_never_shrink_and_are_whole_blocks() {
        for cut in [of(SMALLEST_PART), of(7 * MIB), sizes(Some(40_000_000_000_000), 7 * MIB)] {
            let sizes: Vec<u64> = (1..=MAX_PARTS).map(|number| cut.part(number).unwrap()).collect();
            assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]));
            assert!(sizes.iter().all(|size| size.is_multiple_of(cut.block)));
        }
    }

    #[test]
    fn a_known_length_always_fits_in_few_blocks_and_nearly_even_parts() {
        for expected in (0..=45).map(|exponent| 1u64 << exponent).chain([45_000_000_000_000]) {
            let cut = sizes(Some(expected), SMALLEST_PART);
            assert!(cut.max_bytes() >= expected, "{expected}");
            assert!(cut.unit.is_multiple_of(cut.block) && cut.block >= SMALLEST_PART, "{expected}: {cut:?}");
            assert!(expected.div_ceil(cut.block) <= MAX_BLOCKS, "{expected}: {cut:?}");
        }
        let cut = sizes(Some(1_000_000_000_000), SMALLEST_PART);
        let mut stored = 0;
        let last = (1..).find(|number| {
            stored += cut.part(*number).unwrap();
            stored >= 1_000_000_000_000
        });
        assert!(cut.part(last.unwrap()).unwrap() <= 360 * MIB);
    }

    #[test]
    fn even_parts_are_of_one_size_whole_blocks_and_enough() {
        for (expected, least) in [
            (0, SMALLEST_PART),
            (1 << 40, SMALLEST_PART),
            (45_000_000_000_000, SMALLEST_PART),
            (0, 512 * MIB),
            (1 << 30, 67 * MIB),
            (1 << 35, LARGEST_PART),
        ] {
            let cut = even(Some(expected), least);
            let sizes: std::collections::BTreeSet<_> =
                (1..=MAX_PARTS).map(|number| cut.part(number)).collect();
            assert_eq!(sizes.len(), 1, "{cut:?}");
            assert_eq!(cut.part(MAX_PARTS + 1), None);
            assert!(cut.unit >= least && cut.unit <= LARGEST_PART && cut.max_bytes() >= expected, "{cut:?}");
            assert!(cut.unit.is_multiple_of(cut.block) && cut.block <= LARGEST_BLOCK, "{cut:?}");
        }
    }
}
