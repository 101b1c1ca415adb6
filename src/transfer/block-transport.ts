import type { CID } from 'multiformats/cid'
import { ProtocolError } from '../base/index.ts'
import type { FrameStream, OpenFrames } from './frame-stream.ts'
import {
  CANCEL, CANCELLED, HEAD, NOT_HERE, REQUEST, REQUEST_LATER, blockClientRules, decodeHead, decodeIds, encodeIds, encodeRequests, type WantedBlock
} from './messages.ts'
import { joinFrames } from './wire.ts'

/**
 * Asks one peer for blocks and metadata. Every request ends in exactly one of: all its bytes, `notHere`, `cancelled`, or
 * the end of the transport. Bytes come in the order of the requests; `notHere` and `cancelled` come when they are known.
 * One implementation, over libp2p streams or whatever else carries frames; test/compliance/transport.ts says what any
 * other has to keep.
 */
export interface BlockTransport {
  /**
   * Ids rise from request to request and are never used again. Requests of one turn of the event loop travel together.
   * `later`: nobody waits for it, and whoever somebody waits for goes first.
   */
  request: (id: number, cid: CID, later?: boolean) => void
  /** For an open request; its bytes may still come until it ends. */
  cancel: (id: number) => void
  /** No handler call after this returns, until resume(). May be called from within one. The other side stops sending soon. */
  hold: () => void
  resume: () => void
  /** Calls `done` as soon as nothing that place() gave is in use any more; mostly at once. */
  settle: (done: () => void) => void
  /** Something that place() gave is in use. */
  readonly lent: boolean
  close: () => void
  abort: (error: Error) => void
}

export interface BlockTransportHandler {
  /** `size` bytes for this request follow. */
  head: (id: number, size: number) => void
  /** The next bytes, valid during the call only; all in all exactly as many as the head said. `isLast` ends the request. */
  data: (id: number, bytes: Uint8Array, isLast: boolean) => void
  /** Where the next bytes of this request are best put, at most so many; undefined: anywhere. What is given stays in use until settle(). */
  place: (id: number, bytes: number) => Uint8Array | undefined
  notHere: (id: number) => void
  cancelled: (id: number) => void
  /** Told once; all open requests end with it. ProtocolError when the peer broke the rules. Not after close() or abort(). */
  closed: (error: Error) => void
}

interface OpenRequest {
  /** Bytes that are still to come; undefined before the head. */
  left: number | undefined
  cancelled: boolean
}

export class FramedBlockTransport implements BlockTransport {
  readonly #handler: BlockTransportHandler
  readonly #frames: FrameStream
  /** In the order they were asked in. */
  readonly #open = new Map<number, OpenRequest>()
  /** In the order they were asked in, in runs of one kind. */
  #toRequest: Array<{ type: number, wanted: WantedBlock[] }> = []
  #toCancel: number[] = []
  #flushing = false
  /** The request whose bytes come now. */
  #current = 0
  #lastId = 0

  constructor (open: OpenFrames, handler: BlockTransportHandler) {
    this.#handler = handler
    this.#frames = open(blockClientRules, {
      frame: (type, body) => { this.#answer(type, body) },
      data: (id, bytes) => { this.#data(id, bytes) },
      place: (id, bytes) => id === this.#current && bytes <= (this.#open.get(id)?.left ?? 0) ? this.#handler.place(id, bytes) : undefined,
      drained: () => undefined,
      closed: error => { this.#open.clear(); this.#handler.closed(error) }
    })
  }

  request (id: number, cid: CID, later = false): void {
    if (id <= this.#lastId) throw new RangeError(`request ids rise: ${id} after ${this.#lastId}`)
    this.#lastId = id
    this.#open.set(id, { left: undefined, cancelled: false })
    const type = later ? REQUEST_LATER : REQUEST
    const run = this.#toRequest.at(-1)
    if (run?.type === type) run.wanted.push({ id, cid })
    else this.#toRequest.push({ type, wanted: [{ id, cid }] })
    this.#flushSoon()
  }

  cancel (id: number): void {
    const request = this.#open.get(id)
    if (request === undefined || request.cancelled) return
    request.cancelled = true
    this.#toCancel.push(id)
    this.#flushSoon()
  }

  hold (): void { this.#frames.hold() }
  resume (): void { this.#frames.resume() }
  settle (done: () => void): void { this.#frames.settle(done) }
  get lent (): boolean { return this.#frames.lent }
  close (): void { this.#open.clear(); this.#frames.close() }
  abort (error: Error): void { this.#open.clear(); this.#frames.abort(error) }

  #flushSoon (): void {
    if (this.#flushing) return
    this.#flushing = true
    queueMicrotask(() => {
      this.#flushing = false
      const requests = this.#toRequest
      const cancels = this.#toCancel
      this.#toRequest = []
      this.#toCancel = []
      const frames = [...requests.flatMap(({ type, wanted }) => encodeRequests(type, wanted)), ...encodeIds(CANCEL, cancels)]
      if (frames.length > 0) this.#frames.send(joinFrames(frames))
    })
  }

  #answer (type: number, body: Uint8Array): void {
    if (type === HEAD) {
      const { id, size } = decodeHead(body)
      const request = this.#find(id)
      if (request.left !== undefined || this.#current !== 0) throw new ProtocolError(`a second head, or one within the bytes of another block (request ${id})`)
      request.left = size
      this.#current = id
      this.#handler.head(id, size)
      return
    }
    for (const id of decodeIds(body)) {
      const request = this.#find(id)
      if (type === CANCELLED && !request.cancelled) throw new ProtocolError(`request ${id} ended as cancelled, which it was not`)
      this.#finish(id)
      if (type === NOT_HERE) this.#handler.notHere(id)
      else this.#handler.cancelled(id)
    }
  }

  #data (id: number, bytes: Uint8Array): void {
    const request = this.#find(id)
    if (request.left === undefined || id !== this.#current) throw new ProtocolError(`bytes without a head (request ${id})`)
    if (bytes.length > request.left) throw new ProtocolError(`more bytes than the head said (request ${id})`)
    request.left -= bytes.length
    const isLast = request.left === 0
    if (isLast) this.#finish(id)
    this.#handler.data(id, bytes, isLast)
  }

  #find (id: number): OpenRequest {
    const request = this.#open.get(id)
    if (request === undefined) throw new ProtocolError(`an answer that nobody asked for (request ${id})`)
    return request
  }

  #finish (id: number): void {
    this.#open.delete(id)
    if (this.#current === id) this.#current = 0
  }
}
