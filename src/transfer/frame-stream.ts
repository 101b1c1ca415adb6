import type { Stream } from '@libp2p/interface'
import { MiB, PeerGoneError, asError } from '../base/index.ts'
import { FrameParser, type FrameRules, type FrameSink } from './wire.ts'

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
  /** Sends whole frames; the bytes belong to the stream from then on. Returns false when it is blocked now or closed. */
  send: (frames: Uint8Array) => boolean
  /** No sink call after this returns, until resume(). May be called from within one. */
  hold: () => void
  resume: () => void
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
  readonly #parser: FrameParser
  /** Chunks that came in and were not consumed because of hold(). */
  #rest: Uint8Array[] = []
  #reading = false
  #paused = false
  #closed = false

  constructor (stream: Stream, rules: FrameRules, handler: FrameStreamHandler) {
    this.#stream = stream
    this.#handler = handler
    this.#parser = new FrameParser(rules, handler)
    if (rules.dataType !== undefined) stream.maxReadBufferLength = Math.max(stream.maxReadBufferLength, READ_BUFFER_BYTES_MAX)
    stream.addEventListener('message', this.#onMessage)
    stream.addEventListener('drain', this.#onDrain)
    stream.addEventListener('remoteCloseWrite', this.#onEnd)
    stream.addEventListener('close', this.#onEnd)
    if (stream.status !== 'open') queueMicrotask(this.#onEnd)
  }

  get blocked (): boolean { return this.#stream.writableNeedsDrain }

  send (frames: Uint8Array): boolean {
    if (this.#closed) return false
    try {
      return this.#stream.send(frames) && !this.#stream.writableNeedsDrain
    } catch (error) {
      this.#end(asError(error))
      return false
    }
  }

  hold (): void {
    if (this.#closed) return
    this.#parser.held = true
    this.#pause()
  }

  resume (): void {
    if (this.#closed || !this.#parser.held) return
    this.#parser.held = false
    this.#read()
  }

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
    if (event.data instanceof Uint8Array) this.#rest.push(event.data)
    else this.#rest.push(...event.data)
    this.#read()
  }

  readonly #onDrain = (): void => {
    // libp2p marks the stream writable in a microtask of this event; ours runs after it.
    queueMicrotask(() => { if (!this.#closed && !this.#stream.writableNeedsDrain) this.#handler.drained() })
  }

  readonly #onEnd = (event?: Event): void => {
    const cause = event !== undefined && 'error' in event ? event.error : undefined
    this.#end(new PeerGoneError('the peer closed the stream, or the connection to it ended', { cause }))
  }

  /** Feeds the parser until it is held or has all; calls from within a sink call only leave a note by way of `held`. */
  #read (): void {
    if (this.#reading) return
    this.#reading = true
    try {
      while (this.#rest.length > 0 && !this.#parser.held && !this.#closed) {
        const chunk = this.#rest[0] as Uint8Array
        const consumed = this.#parser.push(chunk)
        if (consumed === chunk.length) this.#rest.shift()
        else if (!this.#closed) this.#rest[0] = chunk.subarray(consumed)
      }
    } catch (error) {
      // Aborts the stream itself, after it stopped listening: the abort's own event must not become the reason.
      this.#end(asError(error))
    } finally {
      this.#reading = false
    }
    if (this.#parser.held || this.#closed || !this.#paused) return
    this.#paused = false
    try {
      this.#stream.resume()
    } catch (error) {
      this.#end(asError(error))
    }
  }

  #pause (): void {
    if (this.#paused || this.#stream.readStatus !== 'readable') return
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
    this.#rest = []
    this.#stream.removeEventListener('message', this.#onMessage)
    this.#stream.removeEventListener('drain', this.#onDrain)
    this.#stream.removeEventListener('remoteCloseWrite', this.#onEnd)
    this.#stream.removeEventListener('close', this.#onEnd)
  }
}

export function framesOver (stream: Stream): OpenFrames {
  return (rules, handler) => new Libp2pFrameStream(stream, rules, handler)
}
