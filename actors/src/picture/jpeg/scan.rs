//! Scan data of a JPEG: bits, Huffman codes, and blocks of coefficients, of which nothing is kept but where they end.

use super::{CUT, HEADER};

/// Bits of a code that are looked up at once.
const LOOKUP_BITS: u32 = 8;
/// The longest code.
const CODE_BITS_MAX: u32 = 16;

const BROKEN: &str = "its pixels make no sense";

/// The tables of ITU-T T.81, annex K.3, as a picture would bring them: frames of motion JPEG leave them out.
const STANDARD: &[u8] = include_bytes!("standard.dht");

/// The tables of codes: four for first coefficients, four for the others.
#[derive(Default)]
pub(super) struct Codes([[Option<Table>; 4]; 2]);

struct Table {
    /// For the next bits: length of the code and its symbol; a length of 0 for a longer code.
    lookup: Vec<(u8, u8)>,
    /// For each length: one more than the last code, and what is added to a code to find its symbol.
    lengths: [(u32, i32); CODE_BITS_MAX as usize + 1],
    symbols: Vec<u8>,
}

impl Codes {
    /// What a picture begins with.
    pub(super) fn standard() -> Self {
        let mut codes = Self::default();
        codes.read(STANDARD).expect("the standard makes sense");
        codes
    }

    /// Reads the tables of one mark.
    pub(super) fn read(&mut self, mut content: &[u8]) -> Result<(), &'static str> {
        while let [place, rest @ ..] = content {
            let counts = rest.first_chunk::<16>().ok_or(HEADER)?;
            let symbols: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let symbols = rest.get(16..16 + symbols).ok_or(HEADER)?;
            let kind = self.0.get_mut(usize::from(place >> 4)).ok_or(HEADER)?;
            *kind.get_mut(usize::from(place & 15)).ok_or(HEADER)? = Some(Table::new(counts, symbols)?);
            content = &rest[16 + symbols.len()..];
        }
        Ok(())
    }

    fn first(&self, index: u8) -> Result<&Table, &'static str> {
        self.0[0][usize::from(index & 3)].as_ref().ok_or(HEADER)
    }

    fn others(&self, index: u8) -> Result<&Table, &'static str> {
        self.0[1][usize::from(index & 3)].as_ref().ok_or(HEADER)
    }
}

impl Table {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, &'static str> {
        let mut lookup = vec![(0, 0); 1 << LOOKUP_BITS];
        let mut lengths = [(0, 0); CODE_BITS_MAX as usize + 1];
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, count) in (1..=CODE_BITS_MAX).zip(counts) {
            lengths[length as usize].1 = index as i32 - code as i32;
            for symbol in &symbols[index..index + usize::from(*count)] {
                if code >> length != 0 {
                    return Err(HEADER);
                }
                if let Some(free_bits) = LOOKUP_BITS.checked_sub(length) {
                    let from = (code << free_bits) as usize;
                    lookup[from..from + (1 << free_bits)].fill((length as u8, *symbol));
                }
                code += 1;
            }
            index += usize::from(*count);
            lengths[length as usize].0 = code;
            code <<= 1;
        }
        Ok(Self { lookup, lengths, symbols: symbols.to_vec() })
    }
}

/// What a scan carries.
pub(super) struct Header {
    /// Its colors by their place in the picture, each with the numbers of its two tables.
    pub(super) colors: Vec<(usize, u8)>,
    /// Its first coefficient.
    pub(super) first: usize,
    /// Its last one.
    pub(super) last: usize,
    /// How many bits of them come later.
    pub(super) bits_missing: u8,
    is_progressive: bool,
    /// Whether it adds a bit to coefficients that came before.
    is_refinement: bool,
}

impl Header {
    pub(super) fn read(
        content: &[u8],
        is_progressive: bool,
        color_of: impl Fn(u8) -> Option<usize>,
    ) -> Result<Self, &'static str> {
        let [count, rest @ ..] = content else { return Err(HEADER) };
        let (pairs, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or(HEADER)?;
        let colors = pairs.chunks_exact(2).map(|pair| Some((color_of(pair[0])?, pair[1])));
        let colors: Vec<_> = colors.collect::<Option<_>>().ok_or(HEADER)?;
        let [first, last, bits, ..] = *rest else { return Err(HEADER) };
        if !(1..=4).contains(&colors.len()) {
            return Err(HEADER);
        }
        if !is_progressive {
            let all =
                Self { colors, first: 0, last: 63, bits_missing: 0, is_progressive, is_refinement: false };
            return Ok(all);
        }
        let (first, last) = (usize::from(first), usize::from(last));
        let is_alone = colors.len() == 1;
        let is_good = if first == 0 { last == 0 } else { is_alone && (first..64).contains(&last) };
        if !is_good {
            return Err(HEADER);
        }
        Ok(Self {
            colors,
            first,
            last,
            bits_missing: bits & 15,
            is_progressive,
            is_refinement: bits >> 4 > 0,
        })
    }

    /// Reads one block.
    pub(super) fn block(
        &self,
        codes: &Codes,
        tables: u8,
        reader: &mut Reader<'_>,
        filled: Option<&mut u64>,
    ) -> Result<(), &'static str> {
        if self.first == 0 && self.is_refinement {
            return reader.skip(1);
        }
        if self.first == 0 {
            let bits = u32::from(reader.symbol(codes.first(tables >> 4)?)?);
            reader.skip(Some(bits).filter(|bits| *bits <= CODE_BITS_MAX).ok_or(BROKEN)?)?;
        }
        if !self.is_progressive {
            return others(codes.others(tables)?, reader);
        }
        let Some(filled) = filled.filter(|_| self.first > 0) else { return Ok(()) };
        let table = codes.others(tables)?;
        if self.is_refinement {
            self.refine(table, reader, filled)
        } else {
            self.begin(table, reader, filled)
        }
    }

    /// The first bits of coefficients.
    fn begin(&self, table: &Table, reader: &mut Reader<'_>, filled: &mut u64) -> Result<(), &'static str> {
        if reader.empty_blocks > 0 {
            reader.empty_blocks -= 1;
            return Ok(());
        }
        let mut at = self.first;
        while at <= self.last {
            let (zeros, bits) = reader.run(table)?;
            if bits == 0 && zeros < 15 {
                reader.empty_blocks = reader.blocks(zeros)? - 1;
                return Ok(());
            }
            at += zeros;
            if bits > 0 {
                reader.skip(bits)?;
                *filled |= 1_u64.checked_shl(at as u32).filter(|_| at <= self.last).ok_or(BROKEN)?;
            }
            at += 1;
        }
        Ok(())
    }

    /// One more bit of coefficients.
    fn refine(&self, table: &Table, reader: &mut Reader<'_>, filled: &mut u64) -> Result<(), &'static str> {
        let mut at = self.first;
        while reader.empty_blocks == 0 && at <= self.last {
            let (mut zeros, bits) = reader.run(table)?;
            if bits == 0 && zeros < 15 {
                reader.empty_blocks = reader.blocks(zeros)?;
                break;
            }
            reader.skip(bits.min(1))?;
            // Over those that came before, and as many of the others as are to stay empty.
            while at <= self.last {
                if *filled & (1 << at) > 0 {
                    reader.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if bits > 0 {
                *filled |= 1_u64.checked_shl(at as u32).filter(|_| at <= self.last).ok_or(BROKEN)?;
            }
            at += 1;
        }
        if reader.empty_blocks > 0 {
            let rest = (at..=self.last).filter(|at| *filled & (1 << at) > 0).count();
            (0..rest).try_for_each(|_| reader.skip(1))?;
            reader.empty_blocks -= 1;
        }
        Ok(())
    }
}

/// The coefficients of a block but the first one.
fn others(table: &Table, reader: &mut Reader<'_>) -> Result<(), &'static str> {
    let mut at = 1;
    while at < 64 {
        match reader.run(table)? {
            (15, 0) => at += 16,
            (_, 0) => return Ok(()),
            (zeros, bits) => {
                at += zeros + 1;
                if at > 64 {
                    return Err(BROKEN);
                }
                reader.skip(bits)?;
            }
        }
    }
    Ok(())
}

/// The bits of a scan, up to the mark that ends it.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    held_bits: u32,
    /// Blocks in a row that have nothing more in this scan.
    empty_blocks: u32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, held_bits: 0, empty_blocks: 0 }
    }

    /// How many bytes the scan has.
    pub(super) fn read_bytes(&self) -> usize {
        self.at
    }

    /// Goes on behind the mark that begins anew.
    pub(super) fn restart(&mut self) -> Result<(), &'static str> {
        (self.held, self.held_bits, self.empty_blocks) = (0, 0, 0);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let filling = rest.iter().take_while(|byte| **byte == 0xff).count();
        match rest.get(filling) {
            Some(0xd0..=0xd7) if filling > 0 => {
                self.at += filling + 1;
                Ok(())
            }
            Some(0xd9) | None => Err(CUT),
            Some(_) => Err(BROKEN),
        }
    }

    /// Takes bytes in while there is room, and none behind a mark.
    fn fill(&mut self) {
        while self.held_bits <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            if byte == 0xff {
                if self.bytes.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.held = self.held << 8 | u64::from(byte);
            self.held_bits += 8;
        }
    }

    /// The next bits without taking them, with zeros behind the end.
    fn peek(&self, bits: u32) -> usize {
        let held = self.held & (1_u64.checked_shl(self.held_bits).unwrap_or(0)).wrapping_sub(1);
        let bits = match self.held_bits.checked_sub(bits) {
            Some(more) => held >> more,
            None => held << (bits - self.held_bits),
        };
        bits as usize
    }

    fn take(&mut self, bits: u32) -> Result<u32, &'static str> {
        if self.held_bits < bits {
            self.fill();
        }
        let taken = self.peek(bits) as u32;
        self.held_bits = self.held_bits.checked_sub(bits).ok_or(CUT)?;
        Ok(taken)
    }

    fn skip(&mut self, bits: u32) -> Result<(), &'static str> {
        self.take(bits).map(drop)
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, &'static str> {
        if self.held_bits < CODE_BITS_MAX {
            self.fill();
        }
        let (length, symbol) = table.lookup[self.peek(LOOKUP_BITS)];
        if length > 0 {
            self.skip(length.into())?;
            return Ok(symbol);
        }
        for length in LOOKUP_BITS + 1..=CODE_BITS_MAX {
            let code = self.peek(length) as u32;
            let (end, offset) = table.lengths[length as usize];
            if code < end {
                self.skip(length)?;
                let index = usize::try_from(code as i32 + offset).map_err(|_| BROKEN)?;
                return table.symbols.get(index).copied().ok_or(BROKEN);
            }
        }
        Err(if self.held_bits < CODE_BITS_MAX { CUT } else { BROKEN })
    }

    /// How many coefficients stay zero, and how many bits the one behind them has.
    fn run(&mut self, table: &Table) -> Result<(usize, u32), &'static str> {
        let symbol = self.symbol(table)?;
        Ok((usize::from(symbol >> 4), u32::from(symbol & 15)))
    }

    /// The length of a run of empty blocks, this one with it.
    fn blocks(&mut self, bits: usize) -> Result<u32, &'static str> {
        let bits = bits as u32;
        Ok((1 << bits) + self.take(bits)?)
    }
}
