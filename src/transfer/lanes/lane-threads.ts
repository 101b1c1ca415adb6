import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:net'
import { Worker } from 'node:worker_threads'
import { LANES_PENDING_MAX, PeerGoneError, abortReason, asError, type Logger } from '../../base/index.ts'
import type { LaneCertificate } from './certificate.ts'
import type { TicketOffice } from './lane-door.ts'
import type { LaneInput, LaneSocket } from './lane-socket.ts'
import type { LaneOffer } from './messages.ts'
import { RingEmptier, type Piece } from './ring.ts'
import type { FromLaneThread, LaneThreadInit, ToLaneThread } from './thread-messages.ts'
import type { Ticket } from './tickets.ts'

/** More do not help: by then the main thread is busy with putting bytes in their places. */
const THREADS_MAX = 8
/** Below so many cores a host's other threads and its neighbours keep them busy. */
const CORES_PER_THREAD = 8

/** Threads that help a node with so many cores: none on a few (docs/decisions/0007-lanes.md). */
export function laneThreadsFor (cores: number): number {
  return Math.min(THREADS_MAX, Math.floor(cores / CORES_PER_THREAD))
}

/** Who serves those that come in. */
export interface LaneHost {
  office: TicketOffice
  enter: (ticket: Ticket, socket: LaneSocket) => LaneInput | undefined
}

/**
 * Threads that keep the sockets of lanes, and their TLS, which are most of what a lane costs. A new lane goes to the thread that has
 * fewest. All listen on one port, and the kernel hands out who comes. When a thread fails its lanes end, and the others go on.
 */
export class LaneThreads {
  readonly #threads: LaneThread[]
  readonly #logger: Logger
  #host: LaneHost | undefined

  constructor (size: number, certificate: LaneCertificate, logger: Logger) {
    const { key, cert, fingerprint } = certificate
    const length = Math.min(size, THREADS_MAX)
    this.#logger = logger
    this.#threads = Array.from({ length }, () => new LaneThread({ certificate: { key, cert, fingerprint }, pendingMax: Math.ceil(LANES_PENDING_MAX / length), isAlone: length === 1 }, () => this.#host, error => {
      logger.error({ error: error.message }, 'a lane thread failed; its lanes have ended')
    }))
  }

  /** Threads that are at work. */
  get running (): number { return this.#threads.filter(({ failed }) => !failed).length }
  get lanes (): number { return this.#threads.reduce((sum, { lanes }) => sum + lanes, 0) }
  /** Somebody would answer. */
  get listening (): boolean { return this.#threads.some(({ listening, failed }) => listening && !failed) }

  serve (host: LaneHost): void { this.#host = host }

  /** All listen there, on the port that the first one gets. Throws what listening throws when none can. */
  async listen (host: string, port: number): Promise<number> {
    // Those who share a port would share it with another process that does the same.
    const free = this.#threads.length > 1 ? await findFree(host, port) : port
    let listened: number | undefined
    let failure: unknown = new PeerGoneError('no lane thread is left')
    for (const thread of this.#threads.filter(({ failed }) => !failed)) {
      try {
        listened = await thread.listen(host, listened ?? free)
      } catch (error) {
        failure = error
        this.#logger.warn({ host, port: listened ?? free, error: asError(error).message }, 'a lane thread cannot listen')
      }
    }
    if (listened === undefined) throw failure
    return listened
  }

  /** Nobody is let in any more. Lanes stay. */
  close (): void { for (const thread of this.#threads) thread.close() }

  /** As lane-client.ts. Throws PeerGoneError, or the signal's reason; the socket is closed then. */
  async open (host: string, offer: LaneOffer, signal: AbortSignal): Promise<RemoteSocket> {
    let best: LaneThread | undefined
    for (const thread of this.#threads) if (!thread.failed && (best === undefined || thread.lanes < best.lanes)) best = thread
    if (best === undefined) throw new PeerGoneError('no lane thread is left')
    return await best.open(host, offer, signal)
  }

  async stop (): Promise<void> { await Promise.all(this.#threads.map(async thread => { await thread.stop() })) }
}

/** A lane's socket that another thread keeps. */
export class RemoteSocket extends EventEmitter<{ close: [], end: [], error: [Error] }> implements LaneSocket {
  readonly elsewhere = true
  readonly writableLength = 0
  destroyed = false
  readonly #post: (message: { type: 'room' | 'destroy' } | { type: 'write', bytes: Uint8Array }) => void
  #ring: RingEmptier | undefined
  #input: LaneInput | undefined
  readonly #pieces: Piece[] = []
  readonly #writing: Array<(error?: Error | null) => void> = []
  #paused = false
  #feeding = false
  /** It is over in its thread, and pieces of it are left here. */
  #over: { message: string | undefined } | undefined

  constructor (post: (message: { type: 'room' | 'destroy' } | { type: 'write', bytes: Uint8Array }) => void, ring?: SharedArrayBuffer) {
    super()
    this.#post = post
    if (ring !== undefined) this.#ring = new RingEmptier(ring)
    this.on('error', () => undefined) // 'close' follows
  }

  /** Its bytes come from the next microtask on: whoever opens a lane is not ready for them yet. */
  attach (input: LaneInput): void {
    this.#input = input
    queueMicrotask(() => { this.#feed() })
  }

  write (bytes: Uint8Array, done: (error?: Error | null) => void): void {
    if (this.destroyed) { queueMicrotask(() => { done(new PeerGoneError('the lane has ended')) }); return }
    this.#writing.push(done)
    this.#post({ type: 'write', bytes })
  }

  pause (): void { this.#paused = true }

  resume (): void {
    this.#paused = false
    this.#feed()
  }

  /** 'close' comes when the thread has done with it: what is being written may be read until then. */
  destroy (): void {
    if (this.destroyed) return
    this.destroyed = true
    this.#pieces.length = 0
    this.#post({ type: 'destroy' })
    if (this.#over !== undefined) this.#finish(this.#over)
  }

  opened (ring: SharedArrayBuffer): void { this.#ring = new RingEmptier(ring) }

  received (pieces: Piece[]): void {
    if (this.destroyed) return
    this.#pieces.push(...pieces)
    this.#feed()
  }

  written (): void { this.#writing.shift()?.(null) }

  ended (message: string | undefined): void {
    const over = { message }
    // What came before its end is still to be taken, by who takes nothing just now.
    if (!this.destroyed && this.#input !== undefined && this.#pieces.length > 0) this.#over = over
    else this.#finish(over)
  }

  #finish ({ message }: { message: string | undefined }): void {
    this.#over = undefined
    this.destroyed = true
    const error = new PeerGoneError(message ?? 'the lane has ended')
    for (const done of this.#writing.splice(0)) done(error)
    if (message !== undefined) this.emit('error', error)
    this.emit('close')
  }

  #feed (): void {
    if (this.#feeding) return
    this.#feeding = true
    try {
      for (let piece = this.#next(); piece !== undefined; piece = this.#next()) {
        this.#pieces.shift()
        if (this.#input?.take(this.#ring?.view(piece) ?? new Uint8Array(), piece.length) === false) this.#paused = true
        if (this.#ring?.empty(piece) === true && !this.#isDestroyed()) this.#post({ type: 'room' })
      }
    } finally {
      this.#feeding = false
    }
    if (this.#over !== undefined && this.#pieces.length === 0) this.#finish(this.#over)
  }

  #next (): Piece | undefined { return this.#paused || this.destroyed || this.#input === undefined ? undefined : this.#pieces[0] }
  // Whoever takes a piece may destroy it, which control flow analysis cannot see.
  #isDestroyed (): boolean { return this.destroyed }
}

class LaneThread {
  readonly #worker: Worker
  readonly #hostOf: () => LaneHost | undefined
  readonly #failed: (error: Error) => void
  readonly #sockets = new Map<number, RemoteSocket>()
  readonly #opening = new Map<number, { resolve: (socket: RemoteSocket) => void, reject: (error: Error) => void }>()
  readonly #listening = new Map<number, { resolve: (port: number) => void, reject: (error: Error) => void }>()
  #asks = 0
  #opened = 0
  #stopped = false
  listening = false
  failed = false

  constructor (init: LaneThreadInit, hostOf: () => LaneHost | undefined, failed: (error: Error) => void) {
    this.#hostOf = hostOf
    this.#failed = failed
    // URLs are not rewritten by the compiler as import specifiers are.
    const extension = import.meta.url.endsWith('.ts') ? '.ts' : '.js'
    this.#worker = new Worker(new URL(`./lane-thread${extension}`, import.meta.url), { workerData: init })
    this.#worker.unref() // it keeps no process alive that has nothing else to do
    this.#worker.on('message', (message: FromLaneThread) => { this.#told(message) })
    this.#worker.on('error', error => { this.#end(asError(error)) })
    this.#worker.on('exit', () => { this.#end(new Error('the lane thread ended')) })
  }

  get lanes (): number { return this.#sockets.size }

  async listen (host: string, port: number): Promise<number> {
    const ask = ++this.#asks
    return await new Promise((resolve, reject) => {
      this.#listening.set(ask, { resolve, reject })
      this.#post({ type: 'listen', ask, host, port })
    })
  }

  async open (host: string, offer: LaneOffer, signal: AbortSignal): Promise<RemoteSocket> {
    const lane = this.#opened += 2
    const socket = this.#socket(lane)
    const onAbort = (): void => { socket.destroy() }
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await new Promise((resolve, reject) => {
        this.#opening.set(lane, { resolve, reject })
        this.#post({ type: 'open', lane, host, offer })
        if (signal.aborted) onAbort()
      })
    } catch (error) {
      if (signal.aborted) throw abortReason(signal)
      throw error
    } finally {
      this.#opening.delete(lane)
      signal.removeEventListener('abort', onAbort)
    }
  }

  close (): void {
    this.listening = false
    this.#post({ type: 'close' })
  }

  async stop (): Promise<void> {
    this.#stopped = true
    await this.#worker.terminate()
    this.#end(new Error('the node is stopping'))
  }

  #socket (lane: number, ring?: SharedArrayBuffer): RemoteSocket {
    const socket = new RemoteSocket(message => { this.#post({ ...message, lane }) }, ring)
    this.#sockets.set(lane, socket)
    return socket
  }

  #post (message: ToLaneThread): void {
    if (!this.failed) this.#worker.postMessage(message)
  }

  #told (message: FromLaneThread): void {
    if (this.failed) return // its end overtook it
    switch (message.type) {
      case 'listening':
        this.listening = true
        this.#listening.get(message.ask)?.resolve(message.port)
        this.#listening.delete(message.ask)
        break
      case 'deaf':
        this.#listening.get(message.ask)?.reject(Object.assign(new Error(message.message), { code: message.code }))
        this.#listening.delete(message.ask)
        break
      case 'claim': this.#answer(message.ask, this.#hostOf()?.office.claim(message.name)); break
      case 'take': this.#answer(message.ask, this.#hostOf()?.office.take(message.name)); break
      case 'entered': {
        const socket = this.#socket(message.lane, message.ring)
        const input = this.#hostOf()?.enter(message.ticket, socket)
        if (input === undefined) socket.destroy()
        else socket.attach(input)
        break
      }
      case 'opened': {
        const socket = this.#sockets.get(message.lane)
        if (socket === undefined || socket.destroyed) break // nobody wants it any more; its end comes
        socket.opened(message.ring)
        this.#opening.get(message.lane)?.resolve(socket)
        break
      }
      case 'received': this.#sockets.get(message.lane)?.received(message.pieces); break
      case 'written': this.#sockets.get(message.lane)?.written(); break
      case 'ended': {
        const socket = this.#sockets.get(message.lane)
        this.#sockets.delete(message.lane)
        this.#opening.get(message.lane)?.reject(new PeerGoneError(message.message ?? 'the lane was refused'))
        socket?.ended(message.message)
        break
      }
    }
  }

  #answer (ask: number, ticket: ReturnType<TicketOffice['claim']> | ReturnType<TicketOffice['take']>): void {
    void Promise.resolve(ticket).then(answer => { this.#post({ type: 'ticket', ask, ticket: answer }) })
  }

  #end (error: Error): void {
    if (this.failed) return
    this.failed = true
    for (const { reject } of [...this.#opening.values(), ...this.#listening.values()]) reject(error)
    this.#listening.clear()
    for (const socket of this.#sockets.values()) socket.ended(error.message)
    this.#sockets.clear()
    if (!this.#stopped) this.#failed(error)
  }
}

/** This port, or any for 0, if nobody else listens there. Throws what listening throws. */
async function findFree (host: string, port: number): Promise<number> {
  const server = createServer()
  server.listen({ host, port, ipv6Only: host.includes(':') })
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address !== null ? address.port : port
}
