//! What waits to be sent to a client: packets in one buffer, and large payloads as they are, shared with whoever else has
//! them. So a message of a megabyte that goes to a hundred slow readers is in memory once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// A buffer that held more bytes than this is given back as soon as it is empty.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What waits to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Full stretches, before `tail`: what was in the buffer, and payloads that are shared.
    stretches: VecDeque<Stretch>,
    tail: BytesMut,
    copied_bytes: usize,
    shared_bytes: usize,
    /// The buffer held much.
    is_large: bool,
}

#[derive(Debug)]
struct Stretch {
    bytes: Bytes,
    is_shared: bool,
}

impl Outbox {
    /// Where packets are written.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a payload as it is.
    pub(crate) fn share(&mut self, payload: Bytes) {
        let before = self.tail.split().freeze();
        self.is_large |= before.len() > KEPT_BYTES_MAX;
        self.copied_bytes += before.len();
        self.shared_bytes += payload.len();
        self.stretches.push_back(Stretch { bytes: before, is_shared: false });
        self.stretches.push_back(Stretch { bytes: payload, is_shared: true });
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.copied_bytes + self.shared_bytes + self.tail.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait and are in memory for this client alone.
    pub(crate) fn copied_bytes(&self) -> usize {
        self.copied_bytes + self.tail.len()
    }

    /// Bytes of payloads that wait and are shared.
    pub(crate) fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// Gives a large buffer back once nothing waits.
    pub(crate) fn tidy(&mut self) {
        if self.is_empty() && std::mem::take(&mut self.is_large) {
            *self = Self::default();
        }
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        let mut stretches = self.stretches.iter().map(|stretch| &*stretch.bytes);
        stretches.find(|bytes| !bytes.is_empty()).unwrap_or(&self.tail)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let stretches = self.stretches.iter().map(|stretch| &*stretch.bytes);
        let chunks = stretches.chain([&*self.tail]).filter(|bytes| !bytes.is_empty());
        let mut filled = 0;
        for (slice, bytes) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(bytes);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.is_large |= self.tail.len() > KEPT_BYTES_MAX;
        while let Some(Stretch { bytes, is_shared }) = self.stretches.front_mut() {
            let step = count.min(bytes.len());
            bytes.advance(step);
            count -= step;
            let waiting = if *is_shared { &mut self.shared_bytes } else { &mut self.copied_bytes };
            *waiting -= step;
            if !bytes.is_empty() {
                return;
            }
            self.stretches.pop_front();
        }
        self.tail.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in it, in order.
    fn content(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let count = outbox.chunks_vectored(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn packets_and_payloads_leave_in_order_however_the_stream_takes_them() {
        let large = Bytes::from(vec![7; 3000]);
        for step in [1, 3, 1000, 3001, 1 << 20] {
            let mut outbox = Outbox::default();
            outbox.share(large.clone());
            outbox.tail().extend_from_slice(b"after");
            outbox.share(large.clone());
            outbox.share(large.clone());
            outbox.tail().extend_from_slice(b"end");
            let expected = [&large, b"after".as_slice(), &large, &large, b"end"].concat();
            assert_eq!(content(&outbox), expected);
            let mut left = Vec::new();
            while !outbox.is_empty() {
                assert_eq!(outbox.copied_bytes() + outbox.shared_bytes(), outbox.remaining());
                let count = step.min(outbox.chunk().len());
                left.extend_from_slice(&outbox.chunk()[..count]);
                outbox.advance(count);
            }
            assert!(left == expected, "in steps of {step}");
            assert_eq!((outbox.remaining(), outbox.shared_bytes()), (0, 0));
        }
    }

    #[test]
    fn one_step_passes_over_several_stretches() {
        let large = Bytes::from(vec![7; 3000]);
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"head");
        outbox.share(large.clone());
        outbox.tail().extend_from_slice(b"end");
        outbox.advance(4 + large.len() + 1);
        assert_eq!((content(&outbox), outbox.shared_bytes()), (b"nd".to_vec(), 0));
    }

    #[test]
    fn a_shared_payload_is_not_copied() {
        let large = Bytes::from(vec![0; 1 << 20]);
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"head");
        outbox.share(large.clone());
        outbox.advance(4);
        assert_eq!(outbox.chunk().as_ptr(), large.as_ptr());
        assert_eq!((outbox.copied_bytes(), outbox.shared_bytes()), (0, 1 << 20));
    }
}
