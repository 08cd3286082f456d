//! Values taken from an input: few bytes for each, so that a mutation of one byte changes one decision.

/// The rest of an input. An input that is used up gives zeros.
#[derive(Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// A number of up to eight bytes, small ones and extreme ones often.
    pub(crate) fn number(&mut self) -> u64 {
        const EXTREMES: [u64; 8] = [0, 1, 4096, u32::MAX as u64, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX];
        match self.byte() {
            small @ 0..=127 => small.into(),
            extreme @ 128..=191 => EXTREMES[usize::from(extreme % 8)],
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// Up to 255 bytes.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// One of them.
    pub(crate) fn choose<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }
}
