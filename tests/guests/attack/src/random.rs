//! Choices that a seed gives again on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A seed from a text (FNV-1a).
    pub(crate) fn new(text: &str) -> Self {
        Self(
            text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            }),
        )
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn choose<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// A number: small, extreme, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.below(4) {
            0 | 1 => self.below(5000) as u64,
            2 => self.choose(&[
                0,
                1,
                4095,
                1 << 20,
                u64::from(u32::MAX),
                1 << 32,
                i64::MAX as u64,
                1 << 63,
                u64::MAX,
            ]),
            _ => self.next(),
        }
    }

    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// The id of a layer: the call's own, one that exists and was not lent, or what is no id.
    pub(crate) fn id(&mut self, own: &str) -> String {
        const IDS: [&str; 18] = [
            "parent",
            "foreign",
            "held",
            "victim",
            "new",
            "none",
            "",
            ".",
            "..",
            "../victim",
            "foreign/../held",
            "/",
            "a,b=rw",
            "foreign\0",
            "-o",
            "foreign-removing",
            "held\n",
            "\u{e9}",
        ];
        match self.below(8) {
            0..=3 => own.to_owned(),
            4 => "x".repeat(self.below(300)),
            _ => self.choose(&IDS).to_owned(),
        }
    }

    /// A name in a layer, or what would be one if it were taken.
    pub(crate) fn name(&mut self) -> Vec<u8> {
        const PARTS: [&str; 20] = [
            "a",
            "b",
            "c",
            "d",
            "up",
            "abs",
            "self",
            "loop",
            "hello",
            "victim",
            "..",
            ".",
            "",
            "etc",
            "proc",
            "root",
            "foreign",
            ".wh.a",
            ".wh..wh..opq",
            "\u{e9}",
        ];
        match self.below(40) {
            0 => vec![b'n'; 200 + self.below(100)],
            1 => self.bytes(20),
            2 => b"a\0/../../victim/hello".to_vec(),
            3 => vec!["d"; self.below(200)].join("/").into_bytes(),
            _ => {
                let parts: Vec<&str> = (0..=self.below(4))
                    .map(|_| self.choose(&PARTS[..if self.0.is_multiple_of(3) { 20 } else { 9 }]))
                    .collect();
                parts.join("/").into_bytes()
            }
        }
    }

    /// Where a link may lead: out, in every way.
    pub(crate) fn target(&mut self) -> Vec<u8> {
        const TARGETS: [&str; 12] = [
            "..",
            "../..",
            "../../../victim",
            "../../../victim/hello",
            "/",
            "/etc",
            "/proc/self/root",
            "/proc/self/fd/3",
            "../foreign",
            "self",
            "a",
            "",
        ];
        if self.one_in(20) { self.bytes(5000) } else { self.choose(&TARGETS).as_bytes().to_vec() }
    }
}
