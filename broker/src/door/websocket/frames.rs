//! The frames of a client, taken apart as their bytes come (RFC 6455, section 5).

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header: two bytes, eight of a length, four of a mask.
const HEADER_BYTES_MAX: usize = 14;
/// Payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// MQTT is binary [MQTT-6.0.0-1].
    #[error("a WebSocket frame of text")]
    Text,
    /// Against RFC 6455.
    #[error("a WebSocket frame against the rules: {0}")]
    Broken(&'static str),
}

impl Fault {
    /// What the close frame says.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::Broken(_) => 1002,
        }
    }
}

/// What bytes held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// So many bytes of payload, now at the front.
    Payload(usize),
    /// The same, and after them the client said goodbye.
    Close(usize),
    /// Something that is not allowed; nothing more is to be read.
    Fault(Fault),
}

/// Where in the frames of its client a stream is.
#[derive(Default)]
pub(super) struct Frames {
    /// A header that is not complete.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    current: Option<Frame>,
    /// A message was begun and its last frame has not begun.
    is_in_message: bool,
    /// Payload of the control frame that is read.
    control: Vec<u8>,
    pings: Vec<Vec<u8>>,
    is_over: bool,
}

/// A frame whose header is complete.
#[derive(Clone, Copy)]
struct Frame {
    kind: Kind,
    bytes_left: u64,
    mask: [u8; 4],
    /// Which byte of the mask is next.
    mask_at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Payload,
    Ping,
    Pong,
    Close,
}

impl Frames {
    /// Takes the frames off bytes as they came from the client: leaves the payload of binary frames at the front.
    pub(super) fn take_apart(&mut self, raw: &mut [u8]) -> Heard {
        let (mut read, mut kept) = (0, 0);
        while read < raw.len() {
            let Some(frame) = &mut self.current else {
                match self.take_header(raw[read]) {
                    Ok(()) => read += 1,
                    Err(fault) => return self.fail(fault),
                }
                if self.has_ended() {
                    return Heard::Close(kept);
                }
                continue;
            };
            let left = usize::try_from(frame.bytes_left).unwrap_or(usize::MAX);
            let count = left.min(raw.len() - read);
            let part = read..read + count;
            frame.unmask(&mut raw[part.clone()]);
            read += count;
            if frame.kind == Kind::Payload {
                raw.copy_within(part, kept);
                kept += count;
            } else {
                self.control.extend_from_slice(&raw[part]);
            }
            if self.has_ended() {
                return Heard::Close(kept);
            }
        }
        Heard::Payload(kept)
    }

    /// The client said goodbye or broke the rules: what else it sends is nobody's business.
    pub(super) fn are_over(&self) -> bool {
        self.is_over
    }

    /// The pings since the last call, each with its payload.
    pub(super) fn take_pings(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.pings)
    }

    fn fail(&mut self, fault: Fault) -> Heard {
        self.is_over = true;
        Heard::Fault(fault)
    }

    /// Adds a byte to the header, and begins the frame when that completes it.
    fn take_header(&mut self, byte: u8) -> Result<(), Fault> {
        self.header[self.header_bytes] = byte;
        self.header_bytes += 1;
        let mut cursor = Cursor::new(&self.header[..self.header_bytes]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Fault::Broken("opcode"))?;
        let Some((header, length)) = parsed else { return Ok(()) };
        self.header_bytes = 0;
        self.current = Some(self.begin(&header, length)?);
        Ok(())
    }

    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, Fault> {
        let Some(mask) = header.mask else { return Err(Fault::Broken("not masked")) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Fault::Broken("reserved bits"));
        }
        let kind = match header.opcode {
            OpCode::Data(Data::Text) => return Err(Fault::Text),
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(Fault::Broken("opcode"));
            }
            OpCode::Data(Data::Binary) if self.is_in_message => {
                return Err(Fault::Broken("a message inside another"));
            }
            OpCode::Data(Data::Continue) if !self.is_in_message => {
                return Err(Fault::Broken("the rest of no message"));
            }
            OpCode::Data(Data::Binary | Data::Continue) => {
                self.is_in_message = !header.is_final;
                Kind::Payload
            }
            OpCode::Control(Control::Ping) => Kind::Ping,
            OpCode::Control(Control::Pong) => Kind::Pong,
            OpCode::Control(Control::Close) => Kind::Close,
        };
        if kind != Kind::Payload && (length > CONTROL_BYTES_MAX || !header.is_final) {
            return Err(Fault::Broken("a control frame that is long or in parts"));
        }
        Ok(Frame { kind, bytes_left: length, mask, mask_at: 0 })
    }

    /// Ends the current frame if it is complete; says whether it was the client's goodbye.
    fn has_ended(&mut self) -> bool {
        let Some(frame) = self.current.take_if(|frame| frame.bytes_left == 0) else { return false };
        let control = std::mem::take(&mut self.control);
        match frame.kind {
            Kind::Payload | Kind::Pong => {}
            Kind::Ping => self.pings.push(control),
            Kind::Close => self.is_over = true,
        }
        self.is_over
    }
}

impl Frame {
    fn unmask(&mut self, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= self.mask[(self.mask_at + index) % 4];
        }
        self.mask_at = (self.mask_at + bytes.len()) % 4;
        self.bytes_left -= bytes.len() as u64;
    }
}
