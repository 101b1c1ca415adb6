import type { CID } from 'multiformats/cid'
import { CID_BYTES, cidKey, viewOfCid } from './block.ts'

/**
 * The CIDs of a file's blocks, in order, as their bytes one after the other: 36 bytes each, where an array of CIDs keeps
 * some 620 bytes for each, which for each TB of models on a host would be 160 MB. `at` and iteration make CIDs anew.
 */
export class CidList implements Iterable<CID> {
  /** CID_BYTES for each. */
  readonly bytes: Uint8Array<ArrayBuffer>

  /** `bytes` stays as it is, and holds nothing but CIDs that Shoal accepts. */
  constructor (bytes: Uint8Array<ArrayBuffer>) { this.bytes = bytes }

  /** The CIDs are accepted ones already (`checkBlockCid`). */
  static from (cids: readonly CID[]): CidList {
    const bytes = new Uint8Array(cids.length * CID_BYTES)
    for (let i = 0; i < cids.length; i++) bytes.set((cids[i] as CID).bytes, i * CID_BYTES)
    return new CidList(bytes)
  }

  get length (): number { return this.bytes.length / CID_BYTES }

  at (i: number): CID | undefined {
    const bytes = this.#bytesAt(i)
    return bytes === undefined ? undefined : viewOfCid(bytes)
  }

  /** What `cidKey` gives for that CID. */
  keyAt (i: number): string | undefined {
    const bytes = this.#bytesAt(i)
    return bytes === undefined ? undefined : cidKey({ bytes })
  }

  * [Symbol.iterator] (): Generator<CID> {
    for (const [, cid] of this.entries()) yield cid
  }

  * entries (): Generator<[number, CID]> {
    for (let i = 0; i < this.length; i++) yield [i, this.at(i) as CID]
  }

  #bytesAt (i: number): Uint8Array<ArrayBuffer> | undefined {
    return i >= 0 && i < this.length ? this.bytes.subarray(i * CID_BYTES, (i + 1) * CID_BYTES) : undefined
  }
}
