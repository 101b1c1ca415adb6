/** Keeps what is hashed for a proof apart from whatever else is, and from the proofs of other versions. */
const DOMAIN = Buffer.from('shoal-proof-2\0')

/**
 * What a digest is made over, before the bytes: the nonce, who asked and who answers. So an answer is nobody else's, and a challenge that is sent back
 * to who made it, or on to a third, is another one with another answer. Peer ids have no NUL.
 */
export function challengeSeed (nonce: Uint8Array, asker: string, prover: string): Uint8Array {
  return Uint8Array.from(Buffer.concat([DOMAIN, Buffer.from(`${asker}\0${prover}\0`), nonce]))
}
