import type { CID } from 'multiformats/cid'
import { BLOCK_BYTES_MAX, FILE_INDEX_BYTES_MAX, HashMismatchError, KiB, MANIFEST_BYTES_MAX, ProtocolError } from '../base/index.ts'
import { digestMatches, hasherFor, verifyBytes, type BlockHasher } from '../model/index.ts'
import type { Slot, SlotPool } from '../storage/slots.ts'
import type { BlockChecks } from './block-checks.ts'

/**
 * Why a request ended without its bytes. `not-here`: the peer lacks it. `withdrawn`: so it says, after it had sent some. `gone`: the peer, or this side, ended the
 * stream. `slow`: the slot it was filling was needed by others, and its peer hardly sent anything. `displaced`: it was needed by
 * others, who are faster. `too-large`: metadata beyond the limit.
 */
export type FailReason = 'not-here' | 'withdrawn' | 'gone' | 'slow' | 'displaced' | 'too-large'

/** A block to get, and whom to tell about it. After cancel() nothing is told but `wasted`. */
export interface BlockJob {
  cid: CID
  size: number
  /** Where it stands in its file: the slot is laid out for there. */
  fileOffset: number
  started: () => void
  /** So many bytes more are here; told of several pieces together. `now` in monotonic milliseconds. */
  received: (bytes: number, now: number) => void
  /** All bytes are here and match the CID. The slot is the callee's to release. */
  verified: (slot: Slot) => void
  failed: (reason: FailReason) => void
  /** All bytes are here and match the CID, but there are `size` of them: the file index is wrong, and the peer is right. Ends it. */
  otherSize: (size: number) => void
  /** Bytes that came and were thrown away. */
  wasted: (bytes: number) => void
}

export interface MetadataJob {
  cid: CID
  bytesMax: number
  verified: (bytes: Uint8Array) => void
  failed: (reason: FailReason) => void
}

/** What a reception needs from its link. */
export interface ReceptionHost {
  readonly slots: SlotPool
  /** Slots are left to others for now. */
  yields: () => boolean
  /** Where blocks are compared with their CIDs; undefined: here, while they come. */
  readonly checks: BlockChecks | undefined
  /** Stops the stream; every hold() takes one resume(). */
  hold: () => void
  resume: () => void
  /** Calls `done` as soon as no slot's memory is in use by the transport any more; mostly at once. */
  settle: (done: () => void) => void
  /** What `checks` found after the last bytes: it is over, with an error if they are not what the CID names. */
  checked: (error?: HashMismatchError) => void
}

/** One request's way in. Methods may throw ProtocolError and HashMismatchError, which end the link and ban the peer. */
export interface Reception {
  head: (size: number) => void
  /** `now` in monotonic milliseconds. */
  data: (bytes: Uint8Array, isLast: boolean, now: number) => void
  /** Where the next bytes are best put, at most so many. */
  place: (bytes: number) => Uint8Array | undefined
  /** It will not come. */
  fail: (reason: FailReason) => void
  /** Nobody wants it any more; bytes that still come are counted as wasted. */
  discard: () => void
}

/** Hashed in pieces of this size while they are in the cache; BLAKE3 is fastest on aligned powers of two. */
const HASH_BYTES = 256 * KiB
/** The load is told of what came after so many bytes or so long. */
const REPORT_BYTES = 256 * KiB
const REPORT_MS = 50
/** No node holds larger ones. */
const METADATA_BYTES_MAX = Math.max(MANIFEST_BYTES_MAX, FILE_INDEX_BYTES_MAX)

/**
 * A block on its way into a slot. The slot is taken when the head comes, not when it is asked for, so the depth of the
 * pipeline costs no memory; when none is free the stream waits.
 */
export class BlockReception implements Reception {
  readonly #job: BlockJob
  readonly #host: ReceptionHost
  #hasher: BlockHasher | undefined
  #slot: Slot | undefined
  #giveUpWaiting: (() => void) | undefined
  #filled = 0
  #hashed = 0
  #reported = 0
  #reportedAt = -Infinity
  /** Bytes the head said. */
  #size = 0
  #checking = false
  #discarded = false

  constructor (job: BlockJob, host: ReceptionHost) {
    this.#job = job
    this.#host = host
  }

  get filling (): boolean { return this.#slot !== undefined }
  /** Of the whole block. */
  get size (): number { return this.#size }
  get filled (): number { return this.#filled }
  /** Bytes that have not come. */
  get left (): number { return this.#size - this.#filled }
  /** All bytes are here, and whether they are right is being found out. */
  get checking (): boolean { return this.#checking }

  head (size: number): void {
    // Another size than the index has: either the peer lies or whoever made the index did. The hash of the bytes tells.
    if (size > BLOCK_BYTES_MAX) throw new ProtocolError(`a block of ${this.#job.size} bytes was announced with ${size}`)
    this.#size = size
    if (this.#discarded) return
    if (this.#host.checks === undefined) this.#hasher = hasherFor(this.#job.cid)
    const slot = this.#host.yields() ? undefined : this.#host.slots.tryAcquire()
    if (slot !== undefined) { this.#use(slot); return }
    this.#host.hold()
    this.#giveUpWaiting = this.#host.slots.acquire(late => {
      this.#giveUpWaiting = undefined
      this.#use(late)
      this.#host.resume()
    }, this.#host.yields)
  }

  place (bytes: number): Uint8Array | undefined {
    return this.#slot?.bytes.subarray(this.#filled, this.#filled + bytes)
  }

  data (bytes: Uint8Array, isLast: boolean, now: number): void {
    const slot = this.#slot
    if (slot === undefined) { this.#job.wasted(bytes.length); return }
    const hasher = this.#hasher
    const isPlaced = bytes.buffer === slot.slab.buffer && bytes.byteOffset === slot.bytes.byteOffset + this.#filled
    if (!isPlaced) slot.bytes.set(bytes, this.#filled)
    this.#filled += bytes.length
    while (hasher !== undefined && this.#filled - this.#hashed >= HASH_BYTES) this.#hash(hasher, slot, this.#hashed + HASH_BYTES)
    if (isLast || this.#filled - this.#reported >= REPORT_BYTES || now - this.#reportedAt > REPORT_MS) this.#report(now)
    // Who was told may have discarded it.
    if (!isLast || this.#slot === undefined) return
    this.#slot = undefined
    if (hasher === undefined) { this.#check(slot); return }
    this.#hash(hasher, slot, this.#filled)
    const error = this.#judge(slot, digestMatches(this.#job.cid, hasher.digest()))
    if (error !== undefined) throw error
  }

  fail (reason: FailReason): void {
    if (this.#discarded) return
    const isWithdrawn = reason === 'not-here' && this.#filled > 0
    this.#drop()
    this.#job.failed(isWithdrawn ? 'withdrawn' : reason)
  }

  discard (): void {
    if (!this.#discarded) this.#drop()
  }

  #check (slot: Slot): void {
    this.#checking = true
    void this.#host.checks?.check(this.#job.cid, slot.bytes).then(matches => {
      this.#checking = false
      if (!this.#discarded && matches !== undefined) { this.#host.checked(this.#judge(slot, matches)); return }
      slot.release()
      // Nobody waits for it any more, and who sent something else is to blame all the same.
      this.#host.checked(matches === false ? this.#mismatch() : undefined)
    })
  }

  /** Tells what came of it. Returns the error where the peer is at fault. */
  #judge (slot: Slot, matches: boolean): HashMismatchError | undefined {
    if (matches && this.#size === this.#job.size) {
      this.#discarded = true
      this.#job.verified(slot)
      return undefined
    }
    slot.release()
    if (matches) {
      this.discard()
      this.#job.otherSize(this.#size)
      return undefined
    }
    this.fail('gone')
    return this.#mismatch()
  }

  #mismatch (): HashMismatchError { return new HashMismatchError(`the bytes sent for ${this.#job.cid.toString()} are not the ones it names`) }

  #report (now: number): void {
    const bytes = this.#filled - this.#reported
    this.#reported = this.#filled
    this.#reportedAt = now
    if (this.#size === this.#job.size) this.#job.received(bytes, now)
  }

  #use (slot: Slot): void {
    slot.prepare(this.#job.fileOffset, this.#size)
    this.#slot = slot
    this.#job.started() // not before: what waits for a slot is no slower for it
  }

  #hash (hasher: BlockHasher, slot: Slot, to: number): void {
    if (to > this.#hashed) hasher.update(slot.bytes.subarray(this.#hashed, to))
    this.#hashed = to
  }

  #drop (): void {
    this.#discarded = true
    const slot = this.#slot
    this.#slot = undefined
    if (slot !== undefined) this.#host.settle(() => { slot.release() })
    if (this.#giveUpWaiting !== undefined) {
      this.#giveUpWaiting()
      this.#giveUpWaiting = undefined
      this.#host.resume()
    }
    if (this.#filled > 0) this.#job.wasted(this.#filled)
    this.#filled = 0
  }
}

/** A manifest or file index on its way in. Only bytes that came take memory, whatever the head claims. */
export class MetadataReception implements Reception {
  readonly #job: MetadataJob
  readonly #tooLarge: () => void
  #bytes = new Uint8Array(0)
  #filled = 0
  #discarded = false

  /** `tooLarge` is called when it should be cancelled. */
  constructor (job: MetadataJob, tooLarge: () => void) {
    this.#job = job
    this.#tooLarge = tooLarge
  }

  head (size: number): void {
    if (size > METADATA_BYTES_MAX) throw new ProtocolError(`metadata of ${size} bytes was announced; there is none of more than ${METADATA_BYTES_MAX}`)
    if (this.#discarded || size <= this.#job.bytesMax) return
    this.fail('too-large')
    this.#tooLarge()
  }

  place (): undefined { return undefined }

  data (bytes: Uint8Array, isLast: boolean): void {
    if (this.#discarded) return
    this.#append(bytes)
    if (!isLast) return
    const whole = this.#bytes.subarray(0, this.#filled)
    if (!verifyBytes(this.#job.cid, whole)) {
      this.fail('gone')
      throw new HashMismatchError(`the bytes sent for ${this.#job.cid.toString()} are not the ones it names`)
    }
    this.#discarded = true
    this.#job.verified(whole)
  }

  fail (reason: FailReason): void {
    if (this.#discarded) return
    this.discard()
    this.#job.failed(reason)
  }

  discard (): void {
    this.#discarded = true
    this.#bytes = new Uint8Array(0)
  }

  /** One buffer that doubles: frames may be of a byte each. */
  #append (bytes: Uint8Array): void {
    const filled = this.#filled + bytes.length
    if (filled > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(filled, Math.min(2 * this.#bytes.length, this.#job.bytesMax)))
      larger.set(this.#bytes.subarray(0, this.#filled))
      this.#bytes = larger
    }
    this.#bytes.set(bytes, this.#filled)
    this.#filled = filled
  }
}
