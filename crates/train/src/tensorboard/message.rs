//! [`Message`]: a protobuf message in the making, with the few kinds of fields that event files have
//! (protobuf.dev/programming-guides/encoding).

/// Fields one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// With an integer or an enum.
    pub(super) fn varint(mut self, field: u32, number: u64) -> Message {
        self.key(field, 0);
        self.base128(number);
        self
    }

    /// With a number in f64.
    pub(super) fn double(mut self, field: u32, number: f64) -> Message {
        self.key(field, 1);
        self.0.extend(number.to_le_bytes());
        self
    }

    /// With a number in f32.
    pub(super) fn float(mut self, field: u32, number: f32) -> Message {
        self.key(field, 5);
        self.0.extend(number.to_le_bytes());
        self
    }

    /// With a string or bytes.
    pub(super) fn blob(mut self, field: u32, bytes: &[u8]) -> Message {
        self.add_bytes(field, bytes);
        self
    }

    /// With packed numbers in f64.
    pub(super) fn doubles(self, field: u32, numbers: &[f64]) -> Message {
        let packed: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.blob(field, &packed)
    }

    /// With a message in it.
    pub(super) fn message(self, field: u32, message: Message) -> Message {
        self.blob(field, &message.0)
    }

    /// With the fields of another.
    pub(super) fn then(mut self, other: Message) -> Message {
        self.0.extend(other.0);
        self
    }

    /// Adds a message to a repeated field.
    pub(super) fn add_message(&mut self, field: u32, message: Message) {
        self.add_bytes(field, &message.0);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn add_bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.base128(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn key(&mut self, field: u32, wire: u8) {
        self.base128(u64::from(field << 3 | u32::from(wire)));
    }

    fn base128(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::Message;

    /// The examples of the encoding's documentation.
    #[test]
    fn fields_are_encoded_as_documented() {
        assert_eq!(Message::default().varint(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().blob(2, b"testing").into_bytes(), b"\x12\x07testing");
        let inner = Message::default().varint(1, 150);
        assert_eq!(Message::default().message(3, inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().float(1, 1.0).into_bytes(), [0x0d, 0, 0, 0x80, 0x3f]);
        assert_eq!(Message::default().double(1, 1.0).into_bytes(), [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }
}
