/** What canonical-reader.ts and canonical-writer.ts both go by: the major types of CBOR (RFC 8949, section 3.1) that are in our formats. */
export const UINT = 0
export const BYTES = 2
export const STRING = 3
export const ARRAY = 4
export const MAP = 5
export const TAG = 6
/** A link is this tag over the CID's bytes behind a zero (ipld.io/specs/codecs/dag-cbor). */
export const LINK_TAG = 42
