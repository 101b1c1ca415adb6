import type { AbortOptions, MessageStream } from '@libp2p/interface'
import { AbstractMessageStream, type SendResult } from '@libp2p/utils'

export type Bytes = Parameters<AbstractMessageStream['sendData']>[0]
export type Chunk = Parameters<MessageStream['send']>[0]

/**
 * A stream laid over another one of a connection (libp2p's seam under Noise): what it does to the bytes is up to the
 * class that extends it; ends, resets, pauses and back-pressure pass through here both ways. Keeps nothing itself.
 */
export abstract class RelayedStream extends AbstractMessageStream {
  protected readonly inner: MessageStream
  #paused = false
  #pauseWanted = false
  #changing = false

  constructor (inner: MessageStream) {
    super({ log: inner.log, direction: inner.direction, inactivityTimeout: inner.inactivityTimeout, maxReadBufferLength: inner.maxReadBufferLength })
    this.inner = inner
    inner.addEventListener('close', event => {
      this.beforeEnd()
      if (event.error === undefined) this.onTransportClosed()
      else if (event.local === true) this.abort(event.error)
      else this.onRemoteReset()
    })
    inner.addEventListener('remoteCloseWrite', () => {
      this.beforeEnd()
      this.onRemoteCloseWrite()
    })
  }

  abstract override sendData (data: Bytes): SendResult

  /** Bytes that are still held back are handed on here, before the end is. */
  protected beforeEnd (): void {}

  override async close (options?: AbortOptions): Promise<void> {
    await this.inner.close(options)
  }

  override sendReset (error: Error): void {
    this.inner.abort(error)
  }

  override sendPause (): void { this.flow(false) }

  override sendResume (): void { this.flow(true) }

  /**
   * Lets the inner stream's bytes come, or holds them. An inner `resume()` hands on what it had held before it tells
   * its own source; a `pause()` from within that would be undone, so it is done afterwards.
   */
  protected flow (wanted: boolean): void {
    this.#pauseWanted = !wanted
    if (this.#changing) return
    this.#changing = true
    try {
      while (this.#paused !== this.#pauseWanted && this.inner.status === 'open' && !this.inner.readableEnded) {
        this.#paused = this.#pauseWanted
        if (this.#paused) this.inner.pause()
        else this.inner.resume()
      }
    } finally {
      this.#changing = false
    }
  }
}
