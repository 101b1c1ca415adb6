import type { Stream } from '@libp2p/interface'
import { MiB, PeerGoneError, asError } from '../base/index.ts'
import { FrameReader } from './frame-reader.ts'
import { STREAM_DATA, packData, type DataShape, type FrameRules, type FrameSink } from './wire.ts'

export interface FrameStreamHandler extends FrameSink {
  /** More may be sent after `blocked` was true. May be called without need. */
  drained: () => void
  /** Told once, when nothing more will come or go; not after abort() or close(), which the caller knows about. */
  closed: (error: Error) => void
}

/** Frames both ways with back-pressure both ways: what the protocols stand on. Anything ordered and reliable can carry them. */
export interface FrameStream {
  /** True while what was sent has not left: wait for `drained`. Sending more only grows a queue. */
  readonly blocked: boolean
  /** How data should be cut to be sent here. */
  readonly shape: DataShape
  /** A buffer of this length to fill and send. */
  allocate: (bytes: number) => Uint8Array
  /** Sends whole frames; the bytes belong to the stream from then on. Returns false when it is blocked now or closed. */
  send: (frames: Uint8Array) => boolean
  /**
   * Sends as much of `source` from `offset` as goes out at once, as data frames, and returns how many bytes of it that was. The
   * source is free again when this returns, and what lies before `offset` may have been overwritten.
   */
  sendData: (type: number, id: number, source: Uint8Array, offset: number) => number
  /** No sink call after this returns, until resume(). May be called from within one. */
  hold: () => void
  resume: () => void
  /** Calls `done` as soon as nothing that FrameSink.place() gave is in use any more; mostly at once. */
  settle: (done: () => void) => void
  /** Something that place() gave is in use. */
  readonly lent: boolean
  /** Says that nothing more will be sent, and listens no longer. */
  close: () => void
  /** Resets it. */
  abort: (error: Error) => void
}

/** Makes the stream call a handler; a handler needs its stream to answer, so one is made from the other. */
export type OpenFrames = (rules: FrameRules, handler: FrameStreamHandler) => FrameStream

/** A paused stream gathers as much as its window lets the other side send, and Yamux windows grow to 16 MiB unless set lower. */
const READ_BUFFER_BYTES_MAX = 17 * MiB

/**
 * A libp2p stream as a FrameStream. It uses events and pause(), never the iterator or byteStream (unbounded, or drops),
 * and never onDrain(): in libp2p 3.3 its promise stays resolved after the first time, so a loop that awaits it
 * queues everything at once.
 */
export class Libp2pFrameStream implements FrameStream {
  readonly #stream: Stream
  readonly #handler: FrameStreamHandler
  readonly #reader: FrameReader
  #paused = false
  #resuming = false
  #closed = false

  constructor (stream: Stream, rules: FrameRules, handler: FrameStreamHandler) {
    this.#stream = stream
    this.#handler = handler
    // #end aborts the stream itself, after it stopped listening: the abort's own event must not become the reason.
    this.#reader = new FrameReader(rules, handler, error => { this.#end(error) })
    if (rules.dataType !== undefined) stream.maxReadBufferLength = Math.max(stream.maxReadBufferLength, READ_BUFFER_BYTES_MAX)
    stream.addEventListener('message', this.#onMessage)
    stream.addEventListener('drain', this.#onDrain)
    stream.addEventListener('remoteCloseWrite', this.#onEnd)
    stream.addEventListener('close', this.#onEnd)
    if (stream.status !== 'open') queueMicrotask(this.#onEnd)
  }

  get blocked (): boolean { return this.#stream.writableNeedsDrain }
  readonly shape = STREAM_DATA
  readonly lent = false

  /** Fresh, and not pooled: libp2p keeps what it is given for an unknown time (in the queues of stream, muxer and encrypter). */
  allocate (bytes: number): Uint8Array { return Buffer.allocUnsafeSlow(bytes) }

  send (frames: Uint8Array): boolean {
    if (this.#closed) return false
    try {
      return this.#stream.send(frames) && !this.#stream.writableNeedsDrain
    } catch (error) {
      this.#end(asError(error))
      return false
    }
  }

  sendData (type: number, id: number, source: Uint8Array, offset: number): number {
    const { frames, bytes } = packData(type, id, source, offset, this.shape, length => this.allocate(length))
    this.send(frames)
    return bytes
  }

  hold (): void {
    if (this.#closed) return
    this.#reader.hold()
    this.#pause()
  }

  resume (): void {
    if (this.#closed || !this.#reader.held) return
    this.#reader.release()
    this.#flow()
  }

  settle (done: () => void): void { done() }

  close (): void {
    if (this.#closed) return
    const { blocked } = this
    this.#forget()
    const reset = (): void => { this.#stream.abort(new PeerGoneError('this node closed the stream')) }
    // Whatever still comes is of no use, and a half-closed stream lives for as long as the other side likes: so reset,
    // at once where flushing could wait for that side too.
    if (blocked) reset()
    else this.#stream.close().then(reset, reset)
  }

  abort (error: Error): void {
    if (this.#closed) return
    this.#forget()
    this.#stream.abort(error)
  }

  readonly #onMessage = (event: { data: Uint8Array | Iterable<Uint8Array> }): void => {
    if (event.data instanceof Uint8Array) this.#reader.push(event.data)
    else for (const chunk of event.data) this.#reader.push(chunk)
    this.#flow()
  }

  readonly #onDrain = (): void => {
    // libp2p marks the stream writable in a microtask of this event; ours runs after it.
    queueMicrotask(() => { if (!this.#closed && !this.#stream.writableNeedsDrain) this.#handler.drained() })
  }

  readonly #onEnd = (event?: Event): void => {
    const cause = event !== undefined && 'error' in event ? event.error : undefined
    this.#end(new PeerGoneError('the peer closed the stream, or the connection to it ended', { cause }))
  }

  /** Lets the stream go on when what it gave is read. */
  #flow (): void {
    if (this.#reader.held || this.#closed || !this.#paused) return
    this.#paused = false
    // It hands on what it holds before it tells Yamux to go on: a pause() from within would be undone by that.
    this.#resuming = true
    try {
      this.#stream.resume()
    } catch (error) {
      this.#end(asError(error))
    } finally {
      this.#resuming = false
    }
    if (this.#reader.held && !this.#closed) this.#pause()
  }

  #pause (): void {
    if (this.#paused || this.#resuming || this.#stream.readStatus !== 'readable') return
    this.#paused = true
    this.#stream.pause()
  }

  #end (error: Error): void {
    if (this.#closed) return
    this.#forget()
    // A stream that the other side half-closed is done for both: no message of ours follows a last one.
    this.#stream.abort(error)
    this.#handler.closed(error)
  }

  #forget (): void {
    this.#closed = true
    this.#reader.close()
    this.#stream.removeEventListener('message', this.#onMessage)
    this.#stream.removeEventListener('drain', this.#onDrain)
    this.#stream.removeEventListener('remoteCloseWrite', this.#onEnd)
    this.#stream.removeEventListener('close', this.#onEnd)
  }
}

export function framesOver (stream: Stream): OpenFrames {
  return (rules, handler) => new Libp2pFrameStream(stream, rules, handler)
}
