//! The structure of a JPEG and its scan data, read code by code to see whether every block of it is there.

use super::ends_with_zeros;

mod scan;

use scan::{Codes, Header, Reader};

/// Scans that are read at most: a progressive picture has about ten, and each may touch every block.
const SCANS_MAX: usize = 100;
/// Blocks of a color that are counted at most; a larger picture is not decoded anyway.
const BLOCKS_MAX: usize = 1 << 20;

const NO_PIXELS: &str = "it ends before its pixels";
const CUT: &str = "it ends in the middle of its pixels";
const HEADER: &str = "its header makes no sense";

/// Whether every block that the header promises is there. Kinds of JPEG that no decoder of ours reads are left to it.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    Walk { bytes, at: 2, codes: Codes::standard(), restart_every: 0, frame: None, scans: 0 }.run()
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    codes: Codes,
    /// Units between two marks that begin anew; 0 for none.
    restart_every: usize,
    frame: Option<Frame>,
    scans: usize,
}

/// What the header says of the whole picture.
struct Frame {
    is_progressive: bool,
    width: usize,
    height: usize,
    colors: Vec<Color>,
}

/// One color, and what was read of it.
struct Color {
    id: u8,
    /// Blocks of a unit across.
    across: usize,
    /// Blocks of a unit down.
    down: usize,
    /// Blocks of a row, up to the last whole unit.
    stride: usize,
    /// Which coefficients of each block are not zero; only progressive pictures need to know.
    filled: Vec<u64>,
    /// How many bits of each coefficient have not come yet.
    bits_missing: [u8; 64],
}

impl<'a> Walk<'a> {
    fn run(mut self) -> Result<(), &'static str> {
        while let Some(mark) = self.next_mark() {
            match mark {
                0xd9 => return self.finish(true),
                // Marks that stand alone.
                0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let Some(content) = self.content() else { return self.finish(false) };
            match mark {
                0xc0..=0xc2 => {
                    let frame = Frame::read(content, mark == 0xc2)?;
                    if frame.is_too_large() {
                        return Ok(());
                    }
                    self.frame = Some(frame);
                }
                0xc4 => self.codes.read(content)?,
                // Lossless, hierarchical and arithmetic ones.
                0xc3 | 0xc5..=0xcf => return Ok(()),
                0xda => self.scan(content)?,
                0xdd => self.restart_every = u16::from_be_bytes(*content.first_chunk().ok_or(HEADER)?).into(),
                _ => {}
            }
        }
        self.finish(false)
    }

    /// The next mark; what stands before it is skipped.
    fn next_mark(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|byte| *byte == 0xff)? + 1;
            match *self.bytes.get(self.at)? {
                // Filling, or an 0xff that is data.
                0xff | 0 => {}
                mark => {
                    self.at += 1;
                    return Some(mark);
                }
            }
        }
    }

    /// What belongs to the mark; `None` where the file ends.
    fn content(&mut self) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..)?;
        let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
        let content = bytes.get(2..length.max(2))?;
        self.at += length.max(2);
        Some(content)
    }

    /// Reads the data of one scan.
    fn scan(&mut self, content: &[u8]) -> Result<(), &'static str> {
        self.scans += 1;
        if self.scans > SCANS_MAX {
            return Err("it has too many scans");
        }
        let frame = self.frame.as_mut().ok_or(HEADER)?;
        let header = Header::read(content, frame.is_progressive, |id| {
            frame.colors.iter().position(|color| color.id == id)
        })?;
        let mut reader = Reader::new(&self.bytes[self.at..]);
        let units = frame.units(&header);
        let mut until_restart = self.restart_every;
        for unit in 0..units {
            if self.restart_every > 0 && until_restart == 0 {
                reader.restart()?;
                until_restart = self.restart_every;
            }
            until_restart = until_restart.wrapping_sub(1);
            frame.unit(&header, unit, &self.codes, &mut reader)?;
        }
        frame.note(&header);
        self.at += reader.read_bytes();
        Ok(())
    }

    /// The end of the picture, be it marked or not. Without the mark, only what was promised says whether it is one.
    fn finish(self, is_marked: bool) -> Result<(), &'static str> {
        let Some(frame) = self.frame.filter(|_| self.scans > 0) else { return Err(NO_PIXELS) };
        if !is_marked && ends_with_zeros(self.bytes) {
            return Err("it ends with zeros");
        }
        let is_there = |color: &Color| {
            if is_marked { color.bits_missing[0] != NOTHING_CAME } else { color.bits_missing == [0; 64] }
        };
        if frame.colors.iter().all(is_there) { Ok(()) } else { Err(CUT) }
    }
}

/// Of a coefficient of which no bit has come.
const NOTHING_CAME: u8 = u8::MAX;

impl Frame {
    fn read(content: &[u8], is_progressive: bool) -> Result<Self, &'static str> {
        let [_, h1, h0, w1, w0, count, rest @ ..] = content else { return Err(HEADER) };
        let (height, width) = (u16::from_be_bytes([*h1, *h0]), u16::from_be_bytes([*w1, *w0]));
        let colors: Vec<_> = rest.chunks_exact(3).take(usize::from(*count)).map(Color::read).collect();
        let is_good = |color: &Color| (1..=4).contains(&color.across) && (1..=4).contains(&color.down);
        let is_whole = !colors.is_empty() && colors.len() == usize::from(*count) && colors.len() <= 4;
        if height == 0 || width == 0 || !is_whole || !colors.iter().all(is_good) {
            return Err(HEADER);
        }
        let mut frame = Self { is_progressive, width: width.into(), height: height.into(), colors };
        frame.measure();
        Ok(frame)
    }

    /// Units of the picture, in which the colors come together: across and down.
    fn grid(&self) -> (usize, usize) {
        let (across, down) = self.unit_blocks();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    /// Blocks of a unit of the finest color: across and down.
    fn unit_blocks(&self) -> (usize, usize) {
        let across = self.colors.iter().map(|color| color.across).max();
        let down = self.colors.iter().map(|color| color.down).max();
        (across.unwrap_or(1), down.unwrap_or(1))
    }

    fn measure(&mut self) {
        let ((across, down), is_too_large) = (self.grid(), self.is_too_large());
        for color in &mut self.colors {
            color.stride = across * color.across;
            if self.is_progressive && !is_too_large {
                color.filled = vec![0; color.stride * down * color.down];
            }
        }
    }

    fn is_too_large(&self) -> bool {
        let (across, down) = self.grid();
        self.colors.iter().any(|color| across * color.across * down * color.down > BLOCKS_MAX)
    }

    /// Blocks that a scan of one color has: those of units that are only filling are left out.
    fn blocks(&self, color: &Color) -> (usize, usize) {
        let (across, down) = self.unit_blocks();
        ((self.width * color.across).div_ceil(8 * across), (self.height * color.down).div_ceil(8 * down))
    }

    fn units(&self, header: &Header) -> usize {
        let (across, down) = match *header.colors.as_slice() {
            [(color, _)] => self.blocks(&self.colors[color]),
            _ => self.grid(),
        };
        across * down
    }

    /// Reads one unit: a block of one color, or the blocks of several that belong together.
    fn unit(
        &mut self,
        header: &Header,
        unit: usize,
        codes: &Codes,
        reader: &mut Reader<'_>,
    ) -> Result<(), &'static str> {
        if let [(index, tables)] = *header.colors.as_slice() {
            let across = self.blocks(&self.colors[index]).0;
            let color = &mut self.colors[index];
            let block = (unit / across) * color.stride + unit % across;
            return header.block(codes, tables, reader, color.filled.get_mut(block));
        }
        let across = self.grid().0;
        for &(index, tables) in &header.colors {
            let color = &mut self.colors[index];
            for (down, right) in
                (0..color.down).flat_map(|down| (0..color.across).map(move |right| (down, right)))
            {
                let row = (unit / across) * color.down + down;
                let block = row * color.stride + (unit % across) * color.across + right;
                header.block(codes, tables, reader, color.filled.get_mut(block))?;
            }
        }
        Ok(())
    }

    /// Notes what a scan has brought.
    fn note(&mut self, header: &Header) {
        for &(index, _) in &header.colors {
            self.colors[index].bits_missing[header.first..=header.last].fill(header.bits_missing);
        }
    }
}

impl Color {
    fn read(bytes: &[u8]) -> Self {
        let (across, down) = (usize::from(bytes[1] >> 4), usize::from(bytes[1] & 15));
        Self { id: bytes[0], across, down, stride: 0, filled: Vec::new(), bits_missing: [NOTHING_CAME; 64] }
    }
}
