//! CBOR text for `SmolStr` fields, named in `#[cbor(with = …)]`.

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use smol_str::SmolStr;

pub(crate) fn encode<C, W: Write>(text: &SmolStr, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
    e.str(text)?.ok()
}

pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<SmolStr, DecodeError> {
    d.str().map(SmolStr::new)
}
