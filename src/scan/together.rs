//! Many small contents hashed at once.
//!
//! BLAKE3 cuts a content into chunks of 1024 bytes and hashes up to 16 of them side by side in the
//! lanes of the processor's registers. A small file has one to eight chunks and leaves most lanes
//! empty; the chunks of a hundred small files fill them. What is done here is the tree of the BLAKE3
//! paper, section 2; every compression is the `blake3` crate's own. That part of the crate is public
//! for its benchmarks and may change with any version: Cargo.toml names the one that this was
//! checked against, and the tests compare with [`blake3::hash`] and the official vectors.

use blake3::IncrementCounter;
use blake3::platform::Platform;
use blake3::{BLOCK_LEN, CHUNK_LEN, OUT_LEN};

/// Chunks that the widest processors hash side by side: 512 bits.
const LANES: usize = 16;

/// Blocks of a chunk.
const CHUNK_BLOCKS: usize = CHUNK_LEN / BLOCK_LEN;

/// The last chunks of contents have any number of blocks. Those that have so many are hashed side
/// by side up to there, and the rest one by one: fewer groups, and fuller ones.
const BLOCKS_STEP: usize = 4;

/// Flags of a compression: BLAKE3 paper, table 3.
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;

/// The initial chaining value: BLAKE3 paper, table 1, the same as that of SHA-256.
const IV: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A chaining value, and the digest that the last one of a tree is.
type Value = [u8; OUT_LEN];

/// One chunk of a content.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// Which chunk of its content it is.
    counter: u32,
    /// Blocks that are hashed side by side with those of other chunks.
    shared_blocks: u32,
    /// Where its bytes begin.
    start: usize,
    /// How many there are.
    length: usize,
    /// Whether it is the only chunk of its content.
    is_root: bool,
    /// Where its value goes.
    place: usize,
}

/// A content, as a row of values that is folded until one is left.
#[derive(Clone, Copy, Debug)]
struct Row {
    first: usize,
    length: usize,
}

/// Small contents that were read and are not hashed yet.
#[derive(Debug)]
pub struct Contents {
    platform: Platform,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    // What hashing needs besides; kept, so that nothing is allocated for each batch.
    chunks: Vec<Chunk>,
    rows: Vec<Row>,
    values: Vec<Value>,
    parents: Vec<[u8; BLOCK_LEN]>,
    made: Vec<u8>,
}

impl Contents {
    /// None yet.
    pub fn new() -> Contents {
        Contents {
            platform: Platform::detect(),
            bytes: Vec::new(),
            ends: Vec::new(),
            chunks: Vec::new(),
            rows: Vec::new(),
            values: Vec::new(),
            parents: Vec::new(),
            made: Vec::new(),
        }
    }

    /// Number of contents.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all contents.
    pub fn bytes(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Adds the content that `read` puts into a space of `size` bytes; it returns how many came.
    ///
    /// # Errors
    /// Those of `read`; nothing is added then.
    pub fn push<E>(
        &mut self,
        size: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.bytes();
        // The space is never given back: bytes of earlier contents are written over.
        if self.bytes.len() < start + size {
            self.bytes.resize(start + size, 0);
        }
        let length = read(&mut self.bytes[start..start + size])?.min(size);
        self.ends.push(start + length);
        Ok(())
    }

    /// Takes back the content that was added last.
    pub fn pop(&mut self) {
        self.ends.pop();
    }

    /// The BLAKE3 digests of all contents, in the order in which they were added; there are none
    /// afterwards.
    pub fn digests(&mut self) -> &[Value] {
        self.cut();
        self.hash_chunks();
        self.fold();
        self.ends.clear();
        // The value of each content stands first in its row; brought to the front, where no row
        // that is still to be looked at begins.
        for (index, row) in self.rows.iter().enumerate() {
            self.values[index] = self.values[row.first];
        }
        &self.values[..self.rows.len()]
    }

    /// Cuts the contents into chunks, and sorts those together that can share the lanes: with the
    /// same counter and as many blocks.
    fn cut(&mut self) {
        self.chunks.clear();
        self.rows.clear();
        let mut start = 0;
        for end in &self.ends {
            let content = end - start;
            // An empty content is one empty chunk.
            let count = content.div_ceil(CHUNK_LEN).max(1);
            let first = self.chunks.len();
            for index in 0..count {
                let length = (content - index * CHUNK_LEN).min(CHUNK_LEN);
                let is_root = count == 1;
                let shared_blocks = match length {
                    // Its last block has to say that it is the root.
                    CHUNK_LEN if !is_root => CHUNK_BLOCKS,
                    // The last block has flags and a length of its own.
                    _ => length.saturating_sub(1) / BLOCK_LEN / BLOCKS_STEP * BLOCKS_STEP,
                };
                self.chunks.push(Chunk {
                    counter: u32::try_from(index).unwrap_or(u32::MAX),
                    shared_blocks: u32::try_from(shared_blocks).unwrap_or(0),
                    start: start + index * CHUNK_LEN,
                    length,
                    is_root,
                    place: first + index,
                });
            }
            self.rows.push(Row { first, length: count });
            start = *end;
        }
        self.chunks.sort_unstable_by_key(|chunk| (chunk.shared_blocks, chunk.counter));
        self.values.clear();
        self.values.resize(self.chunks.len(), bytes_of(IV));
    }

    fn hash_chunks(&mut self) {
        let Contents { platform, bytes, chunks, values, made, .. } = self;
        let alike =
            |a: &Chunk, b: &Chunk| (a.shared_blocks, a.counter) == (b.shared_blocks, b.counter);
        for group in chunks.chunk_by(alike).flat_map(|group| group.chunks(LANES)) {
            let counter = u64::from(group[0].counter);
            let side_by_side = match group[0].shared_blocks {
                4 => hash_many::<{ 4 * BLOCK_LEN }>,
                8 => hash_many::<{ 8 * BLOCK_LEN }>,
                12 => hash_many::<{ 12 * BLOCK_LEN }>,
                16 => hash_many::<CHUNK_LEN>,
                _ => hash_none,
            };
            side_by_side(*platform, bytes, group, made);
            for (chunk, value) in group.iter().zip(made.chunks_exact(OUT_LEN)) {
                values[chunk.place].copy_from_slice(value);
            }
            for chunk in group.iter().filter(|chunk| chunk.shared_blocks as usize != CHUNK_BLOCKS) {
                let content = &bytes[chunk.start..chunk.start + chunk.length];
                let value = &mut values[chunk.place];
                *value = finish_chunk(*platform, *value, content, chunk, counter);
            }
        }
    }

    /// Folds each row: neighbours become their parent, and one without a neighbour moves up. That is
    /// the tree of the paper, in which the left half of a parent is the largest power of two.
    fn fold(&mut self) {
        let Contents { platform, rows, values, parents, made, .. } = self;
        loop {
            let folds = |row: &Row, is_root: bool| match is_root {
                true => row.length == 2,
                false => row.length > 2,
            };
            if rows.iter().all(|row| row.length < 2) {
                return;
            }
            for is_root in [true, false] {
                parents.clear();
                for row in rows.iter().filter(|row| folds(row, is_root)) {
                    let values = &values[row.first..row.first + row.length];
                    for pair in values.chunks_exact(2) {
                        let mut block = [0; BLOCK_LEN];
                        block[..OUT_LEN].copy_from_slice(&pair[0]);
                        block[OUT_LEN..].copy_from_slice(&pair[1]);
                        parents.push(block);
                    }
                }
                let flags = if is_root { PARENT | ROOT } else { PARENT };
                made.clear();
                made.resize(parents.len() * OUT_LEN, 0);
                for (blocks, made) in parents.chunks(LANES).zip(made.chunks_mut(LANES * OUT_LEN)) {
                    let mut inputs = [&[0; BLOCK_LEN]; LANES];
                    inputs.iter_mut().zip(blocks).for_each(|(input, block)| *input = block);
                    let inputs = &inputs[..blocks.len()];
                    platform.hash_many(inputs, &IV, 0, IncrementCounter::No, flags, 0, 0, made);
                }
                let mut made = made.chunks_exact(OUT_LEN);
                for row in rows.iter_mut().filter(|row| folds(row, is_root)) {
                    let pairs = row.length / 2;
                    for (place, value) in (row.first..row.first + pairs).zip(&mut made) {
                        values[place].copy_from_slice(value);
                    }
                    if row.length % 2 == 1 {
                        values[row.first + pairs] = values[row.first + row.length - 1];
                    }
                    row.length = row.length.div_ceil(2);
                }
            }
        }
    }
}

impl Default for Contents {
    fn default() -> Contents {
        Contents::new()
    }
}

/// Hashes the first `N` bytes of at most [`LANES`] chunks with the same counter.
fn hash_many<const N: usize>(
    platform: Platform,
    bytes: &[u8],
    group: &[Chunk],
    made: &mut Vec<u8>,
) {
    let mut inputs = [&[0; N]; LANES];
    for (input, chunk) in inputs.iter_mut().zip(group) {
        if let Some(bytes) = bytes[chunk.start..].first_chunk::<N>() {
            *input = bytes;
        }
    }
    let counter = u64::from(group[0].counter);
    let end = if N == CHUNK_LEN { CHUNK_END } else { 0 };
    made.clear();
    made.resize(group.len() * OUT_LEN, 0);
    let inputs = &inputs[..group.len()];
    platform.hash_many(inputs, &IV, counter, IncrementCounter::No, 0, CHUNK_START, end, made);
}

/// Chunks too small to share anything.
fn hash_none(_: Platform, _: &[u8], _: &[Chunk], made: &mut Vec<u8>) {
    made.clear();
}

/// Hashes the blocks of a chunk that it does not share with others, the last one among them.
fn finish_chunk(
    platform: Platform,
    value: Value,
    content: &[u8],
    chunk: &Chunk,
    counter: u64,
) -> Value {
    let mut words = words_of(&value);
    let mut done = chunk.shared_blocks as usize * BLOCK_LEN;
    loop {
        let rest = &content[done..];
        let length = rest.len().min(BLOCK_LEN);
        let mut block = [0; BLOCK_LEN];
        block[..length].copy_from_slice(&rest[..length]);
        let is_last = rest.len() <= BLOCK_LEN;
        let mut flags = 0;
        if done == 0 {
            flags |= CHUNK_START;
        }
        if is_last {
            flags |= CHUNK_END | if chunk.is_root { ROOT } else { 0 };
        }
        let length = u8::try_from(length).unwrap_or(u8::MAX);
        platform.compress_in_place(&mut words, &block, length, counter, flags);
        if is_last {
            return bytes_of(words);
        }
        done += BLOCK_LEN;
    }
}

fn bytes_of(words: [u32; 8]) -> Value {
    let mut bytes = [0; OUT_LEN];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn words_of(bytes: &Value) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::hex;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn digests(contents: &[&[u8]]) -> Vec<String> {
        let mut all = Contents::new();
        for content in contents {
            let copy = |space: &mut [u8]| {
                space.copy_from_slice(content);
                Ok::<_, Infallible>(content.len())
            };
            all.push(content.len(), copy).unwrap();
        }
        all.digests().iter().map(|digest| hex(digest)).collect()
    }

    fn one_by_one(contents: &[&[u8]]) -> Vec<String> {
        contents.iter().map(|content| blake3::hash(content).to_hex().to_string()).collect()
    }

    /// Source: test_vectors.json of the BLAKE3 team: inputs are the bytes 0 to 250 again and again.
    #[test]
    fn digests_are_those_of_the_official_vectors() {
        let vectors = [
            (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
            (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
            (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
            (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
            (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
            (2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"),
            (2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"),
            (3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2"),
            (3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"),
            (4096, "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969"),
            (4097, "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995"),
            (5120, "9cadc15fed8b5d854562b26a9536d9707cadeda9b143978f319ab34230535833"),
            (5121, "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff"),
            (6144, "3e2e5b74e048f3add6d21faab3f83aa44d3b2278afb83b80b3c35164ebeca205"),
            (6145, "f1323a8631446cc50536a9f705ee5cb619424d46887f3c376c695b70e0f0507f"),
            (7168, "61da957ec2499a95d6b8023e2b0e604ec7f6b50e80a9678b89d2628e99ada77a"),
            (7169, "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817"),
        ];
        let input: Vec<u8> = (0..8192u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let contents: Vec<&[u8]> = vectors.iter().map(|(length, _)| &input[..*length]).collect();
        let expected: Vec<&str> = vectors.iter().map(|(_, digest)| *digest).collect();
        assert_eq!(digests(&contents), expected);
        for (content, expected) in contents.iter().zip(expected) {
            assert_eq!(digests(&[content]), [expected]);
        }
    }

    #[test]
    fn every_length_up_to_three_chunks_has_its_digest_beside_any_other() {
        let input: Vec<u8> = (0..20_000u32).map(|at| u8::try_from(at * 7 % 256).unwrap()).collect();
        let contents: Vec<&[u8]> = (0..=3 * CHUNK_LEN + 1).map(|length| &input[..length]).collect();
        assert_eq!(digests(&contents), one_by_one(&contents));
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        let mut all = Contents::new();
        let fill = |byte: u8| {
            move |space: &mut [u8]| {
                space.fill(byte);
                Ok::<_, Infallible>(space.len() / 2)
            }
        };
        all.push(4000, fill(1)).unwrap();
        all.pop();
        all.push(3000, fill(2)).unwrap();
        assert_eq!(all.push(5, |_| Err("no")), Err("no"));
        assert_eq!((all.len(), all.bytes()), (1, 1500));
        assert_eq!(all.digests(), [*blake3::hash(&[2; 1500]).as_bytes()]);
        assert!(all.is_empty() && all.digests().is_empty());
    }

    proptest! {
        #[test]
        fn together_is_the_same_as_one_by_one(
            contents in prop::collection::vec(
                (0usize..20_000, any::<u8>()).prop_map(|(length, first)| {
                    (0..length).map(|at| u8::try_from(at % 253).unwrap() ^ first).collect::<Vec<u8>>()
                }),
                0..60,
            )
        ) {
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(digests(&contents), one_by_one(&contents));
        }
    }
}
