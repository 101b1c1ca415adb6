import { FRAME_PAYLOAD_BYTES_MAX, KiB, LANE_FRAME_PAYLOAD_BYTES_MAX, PeerGoneError, asError, type Clock } from '../../base/index.ts'
import { FrameReader } from '../frame-reader.ts'
import type { FrameStream, FrameStreamHandler } from '../frame-stream.ts'
import { DATA_HEAD_BYTES, packData, writeDataHead, type DataShape, type FrameRules } from '../wire.ts'
import type { LinkLimiter } from '../../discovery/index.ts'
import type { BufferPool } from './buffer-pool.ts'
import type { LaneInput, LaneSocket } from './lane-socket.ts'

/** From here on the stream is blocked: what waits here cannot be taken back when it is cancelled. The kernel's buffer keeps the wire busy. */
const QUEUE_BYTES_MAX = 256 * KiB
/** Short frames that wait together leave together, up to this. */
const JOINED_BYTES_MAX = 32 * KiB

/** One data frame a write, and with its head 16 full TLS records: a frame's head is in the way of one record of sixteen. */
const LANE_DATA: DataShape = { frameBytesMax: LANE_FRAME_PAYLOAD_BYTES_MAX, sendBytesMax: LANE_FRAME_PAYLOAD_BYTES_MAX }
/** Where that takes longer than this to leave, smaller pieces: others get their turn, and less is on its way that may be cancelled. */
const SLOW_WRITE_MS = 20
const SLOW_QUEUE_BYTES_MAX = 64 * KiB
/** Of a socket that another thread keeps: while it is told of one write the next is there. */
const WRITES_ELSEWHERE = 2
const SLOW_DATA: DataShape = { frameBytesMax: FRAME_PAYLOAD_BYTES_MAX, sendBytesMax: FRAME_PAYLOAD_BYTES_MAX }
/** A peer whose last record was shorter than this is in no hurry, and no memory is set aside for its next one. */
const PLACED_BYTES_MIN = 8 * KiB
/**
 * Records that are put where they belong are told of so many bytes together, unless the last of that took longer than TOLD_MS: a
 * record of 16 KiB is too little to call ten functions for.
 */
const TOLD_BYTES = 256 * KiB
const TOLD_MS = 10

/** What all lanes of a node share. */
export interface LaneShared {
  readonly pool: BufferPool
  readonly clock: Clock
  /** Caps what this node sends and receives, as on libp2p's connections. */
  readonly limiter?: LinkLimiter | undefined
}

/**
 * A TLS socket as a FrameStream. One write is under way at a time: several at once would be copied into one by Node, and
 * a single one is encrypted from where it lies. Two where another thread keeps the socket, and there all that is sent is copied first. It takes a socket whose handshakes are over and whose `input` it becomes.
 */
export class LaneStream implements FrameStream, LaneInput {
  readonly #socket: LaneSocket
  readonly #handler: FrameStreamHandler
  readonly #reader: FrameReader
  readonly #pool: BufferPool
  readonly #clock: Clock
  readonly #limiter: LinkLimiter | undefined
  readonly #queue: Uint8Array[] = []
  #queuedBytes = 0
  /** Where the socket puts what comes next, if that is memory of the sink's: the rest of `#run`. */
  #lent: Uint8Array | undefined
  /** Memory of the sink's for the rest of a frame, of which the first `#filled` bytes are here and the first `#told` are told. */
  #run: Uint8Array | undefined
  #filled = 0
  #told = 0
  #toldAt = -Infinity
  /** Records come so slowly that each is told of. */
  #slowly = false
  /** The last chunk was a large one. */
  #busy = false
  #settling: Array<() => void> = []
  readonly #writesMax: number
  /** Writes that are under way, or held back by a cap. */
  #writes = 0
  /** When the last one was over. */
  #leftAt = -Infinity
  #wasBlocked = false
  #slow = false
  /** Ends what waits for the cap. */
  readonly #waits = new Set<() => void>()
  #cancelReceive: (() => void) | undefined
  #closed = false

  constructor (socket: LaneSocket, { pool, clock, limiter }: LaneShared, rules: FrameRules, handler: FrameStreamHandler) {
    this.#socket = socket
    this.#writesMax = socket.elsewhere === true ? WRITES_ELSEWHERE : 1
    this.#pool = pool
    this.#clock = clock
    this.#limiter = limiter
    this.#handler = handler
    this.#reader = new FrameReader(rules, handler, error => { this.#end(error) })
    socket.once('close', () => {
      this.#lent = undefined
      this.#run = undefined
      this.#settle()
      this.#onClose()
    })
    socket.on('end', this.#onClose)
    socket.on('error', this.#onError)
    if (socket.destroyed) queueMicrotask(this.#onClose)
  }

  get blocked (): boolean { return this.#queuedBytes >= this.#writesMax * (this.#slow ? SLOW_QUEUE_BYTES_MAX : QUEUE_BYTES_MAX) }

  allocate (bytes: number): Uint8Array { return this.#pool.take(bytes) }

  send (frames: Uint8Array): boolean {
    if (this.#closed) return false
    this.#queue.push(frames)
    this.#queuedBytes += frames.length
    if (this.#writes < this.#writesMax) this.#write()
    if (!this.blocked) return true
    this.#wasBlocked = true
    return false
  }

  /**
   * With nothing else to send it goes out from where it lies: TLS encrypts within the call, into memory of its own. The frame's
   * head takes the place of bytes that have left; so the first piece of a block is copied, and the other fifteen are not.
   */
  sendData (type: number, id: number, source: Uint8Array, offset: number): number {
    const { shape } = this
    const isFree = !this.#closed && this.#socket.elsewhere !== true && this.#writes === 0 && this.#queue.length === 0 && this.#socket.writableLength === 0
    if (!isFree || offset < DATA_HEAD_BYTES) {
      const { frames, bytes } = packData(type, id, source, offset, shape, length => this.allocate(length))
      this.send(frames)
      return bytes
    }
    const bytes = Math.min(shape.frameBytesMax, source.length - offset)
    const frame = source.subarray(offset - DATA_HEAD_BYTES, offset + bytes)
    writeDataHead(frame, type, id, bytes)
    this.send(frame)
    return bytes
  }

  get shape (): DataShape { return this.#slow ? SLOW_DATA : LANE_DATA }
  get lent (): boolean { return this.#lent !== undefined }

  take (memory: Uint8Array, length: number): boolean {
    if (this.#closed) return false
    this.#busy = length >= PLACED_BYTES_MIN
    if (memory !== this.#lent) {
      this.#endRun()
      this.#reader.lend(length === memory.length ? memory : memory.subarray(0, length))
    } else {
      this.#filled += length
      if (this.#slowly || !this.#busy || this.#filled - this.#told >= TOLD_BYTES || this.#filled === this.#run?.length) this.#tell()
    }
    if (this.#limiter !== undefined && !this.#limiter.receive.force(length)) this.#throttle(this.#limiter)
    return this.#flowing
  }

  /** Asked after each chunk: the memory it gave before is not in use any more. */
  place (): Uint8Array | undefined {
    this.#lent = undefined
    if (this.#settling.length > 0 || !this.#busy || this.#closed || this.#reader.held) this.#endRun()
    if (this.#settling.length > 0) this.#settle()
    if (!this.#busy || this.#closed || this.#reader.held) return undefined
    if (this.#run === undefined || this.#filled === this.#run.length) {
      this.#run = this.#reader.place()
      this.#filled = this.#told = 0
    }
    return this.#lent = this.#filled === 0 ? this.#run : this.#run?.subarray(this.#filled)
  }

  #endRun (): void {
    this.#tell()
    this.#run = undefined
  }

  /** Hands on what is here of the run; the reader copies what it cannot read now. */
  #tell (): void {
    if (this.#run === undefined || this.#told === this.#filled) return
    const now = this.#clock.monotonic()
    this.#slowly = now - this.#toldAt > TOLD_MS
    this.#toldAt = now
    const bytes = this.#run.subarray(this.#told, this.#filled)
    this.#told = this.#filled
    this.#reader.lend(bytes)
  }

  /** What was set aside for the next record stays so until that record, or the socket's end: the socket was told its address. */
  settle (done: () => void): void {
    if (this.lent) this.#settling.push(done)
    else done()
  }

  hold (): void {
    if (this.#closed || this.#reader.held) return
    this.#reader.hold()
    this.#socket.pause()
  }

  resume (): void {
    if (this.#closed || !this.#reader.held) return
    this.#reader.release()
    if (this.#flowing) this.#socket.resume()
  }

  get #flowing (): boolean { return !this.#closed && !this.#reader.held && this.#cancelReceive === undefined }

  /** Takes nothing more in until the cap allows it. */
  #throttle ({ receive }: LinkLimiter): void {
    if (this.#closed || this.#cancelReceive !== undefined) return
    this.#socket.pause()
    this.#cancelReceive = receive.wait(() => {
      this.#cancelReceive = undefined
      if (this.#flowing) this.#socket.resume()
    })
  }

  close (): void { this.abort(new PeerGoneError('this node closed the lane')) }

  abort (_error: Error): void {
    if (this.#closed) return
    this.#forget()
    this.#socket.destroy()
  }

  #write (): void {
    const next = this.#next()
    if (next === undefined) return
    this.#writes++
    const beganAt = this.#clock.monotonic()
    const mayGoOn = this.#limiter?.send.force(next.length) ?? true
    this.#socket.write(next, error => {
      this.#queuedBytes -= next.length
      this.#pool.give(next)
      if (error !== null && error !== undefined) { this.#end(error); return }
      if (this.#closed) return
      const from = Math.max(beganAt, this.#leftAt)
      this.#leftAt = this.#clock.monotonic()
      this.#writeOn(mayGoOn, () => { this.#took(next.length, this.#clock.monotonic() - from) })
      if (this.#wasBlocked && !this.blocked) {
        this.#wasBlocked = false
        this.#handler.drained()
      }
    })
  }

  #took (bytes: number, ms: number): void {
    if (bytes < FRAME_PAYLOAD_BYTES_MAX) return
    this.#slow = ms * QUEUE_BYTES_MAX / bytes > SLOW_WRITE_MS
    // What is queued may be too much from now on: whoever finds it so waits to be told that it has left.
    if (this.blocked) this.#wasBlocked = true
  }

  /** A write is over: the next one, as soon as the cap allows it. */
  #writeOn (mayGoOn: boolean, over: () => void): void {
    const goOn = (): void => {
      over()
      this.#writes--
      this.#write()
    }
    if (mayGoOn || this.#limiter === undefined) { goOn(); return }
    const cancel = this.#limiter.send.wait(() => {
      this.#waits.delete(cancel)
      goOn()
    })
    this.#waits.add(cancel)
  }

  /** The next bytes to write: one buffer, or several short ones made one. */
  #next (): Uint8Array | undefined {
    const first = this.#queue.shift()
    if (first === undefined) return undefined
    let bytes = first.length
    let count = 0
    for (const frames of this.#queue) {
      if (bytes + frames.length > JOINED_BYTES_MAX) break
      bytes += frames.length
      count++
    }
    if (count === 0) return first
    const joined = Buffer.concat([first, ...this.#queue.slice(0, count)], bytes)
    for (const frames of [first, ...this.#queue.splice(0, count)]) this.#pool.give(frames)
    return joined
  }

  #settle (): void {
    for (const done of this.#settling.splice(0)) done()
  }

  readonly #onClose = (): void => { this.#end(new PeerGoneError('the peer closed the lane, or the network did')) }
  readonly #onError = (error: Error): void => { this.#end(new PeerGoneError(`the lane broke: ${error.message}`, { cause: error })) }

  #end (error: Error): void {
    if (this.#closed) return
    this.#forget()
    this.#socket.destroy()
    this.#handler.closed(asError(error))
  }

  #forget (): void {
    this.#closed = true
    for (const cancel of this.#waits) cancel()
    this.#cancelReceive?.()
    this.#reader.close()
    for (const frames of this.#queue.splice(0)) this.#pool.give(frames)
  }
}
