import type { TLSSocket } from 'node:tls'
import { parentPort, workerData } from 'node:worker_threads'
import { KiB, asError, systemClock, systemCode } from '../../base/index.ts'
import { openLane } from './lane-client.ts'
import { LaneDoor } from './lane-door.ts'
import type { LaneInput } from './lane-socket.ts'
import { RECEIVE_RING_BYTES, REQUEST_RING_BYTES, RingFiller, type Piece } from './ring.ts'
import type { FromLaneThread, LaneThreadInit, ToLaneThread } from './thread-messages.ts'
import type { Ticket } from './tickets.ts'

/**
 * A lane thread: sockets, TLS and nothing else. What comes in is decrypted into memory that the main thread reads; what it writes is
 * encrypted here. Who may have a lane, and what its bytes mean, the main thread decides (lane-threads.ts).
 */
const port = parentPort
if (port === null) throw new Error('this file is the program of a thread')
const { certificate, pendingMax, isAlone } = workerData as LaneThreadInit
const tell = (message: FromLaneThread): void => { port.postMessage(message) }

/** The main thread is told of so many bytes together, or of what has come when nothing more does. */
const TOLD_BYTES = 256 * KiB

/** One lane's socket, tied to its other half in the main thread. */
class Relay implements LaneInput {
  readonly #lane: number
  readonly #socket: TLSSocket
  readonly #ring: RingFiller
  #pieces: Piece[] = []
  #untold = 0
  /** Nothing is read from the socket until the main thread says that there is room; records that are decrypted already come all the same. */
  #stopped = false
  #cancelTell: (() => void) | undefined

  constructor (lane: number, socket: TLSSocket, ringBytes: number) {
    this.#lane = lane
    this.#socket = socket
    this.#ring = new RingFiller(ringBytes)
    let message: string | undefined
    socket.on('error', error => { message = error.message })
    socket.once('end', () => { socket.destroy() })
    socket.once('close', () => {
      this.#tell()
      relays.delete(lane)
      tell({ type: 'ended', lane, message })
    })
    relays.set(lane, this)
  }

  get ring (): SharedArrayBuffer { return this.#ring.memory }

  place (): Uint8Array | undefined { return this.#ring.place() }

  take (memory: Uint8Array, length: number): boolean {
    if (memory.buffer !== this.#ring.memory) {
      for (let at = 0; at < length;) {
        const place = this.#ring.place()
        if (place === undefined) { this.#socket.destroy(new Error('more came than there is room for')); return false }
        const count = Math.min(place.length, length - at)
        place.set(memory.subarray(at, at + count))
        this.#filled(count)
        at += count
      }
    } else {
      this.#filled(length)
    }
    this.#stopped ||= !this.#ring.mayRead()
    return !this.#stopped
  }

  /** Told of when the kernel has taken it: the main thread has two under way at most. */
  write (bytes: Uint8Array): void {
    if (this.#socket.destroyed) { tell({ type: 'written', lane: this.#lane }); return }
    this.#socket.write(bytes, () => { tell({ type: 'written', lane: this.#lane }) })
  }

  room (): void {
    if (!this.#ring.mayRead()) return // a piece may be too little
    this.#stopped = false
    this.#socket.resume()
  }
  destroy (): void { this.#socket.destroy() }

  #filled (length: number): void {
    const piece = this.#ring.fill(length)
    const last = this.#pieces.at(-1)
    if (last !== undefined && last.at + last.length === piece.at) {
      last.length += length
      last.upto = piece.upto
    } else {
      this.#pieces.push(piece)
    }
    this.#untold += length
    if (this.#untold >= TOLD_BYTES) { this.#tell(); return }
    if (this.#cancelTell !== undefined) return
    const turn = setImmediate(() => { this.#tell() })
    this.#cancelTell = () => { clearImmediate(turn) }
  }

  #tell (): void {
    this.#cancelTell?.()
    this.#cancelTell = undefined
    if (this.#pieces.length === 0) return
    tell({ type: 'received', lane: this.#lane, pieces: this.#pieces })
    this.#pieces = []
    this.#untold = 0
  }
}

const relays = new Map<number, Relay>()
const opening = new Map<number, AbortController>()
const asked = new Map<number, (ticket: Ticket | boolean | undefined) => void>()
let asks = 0
let entered = -1

const ask = async (type: 'claim' | 'take', name: string): Promise<Ticket | boolean | undefined> => await new Promise(resolve => {
  const number = ++asks
  asked.set(number, resolve)
  tell({ type, ask: number, name })
})

const door = new LaneDoor({
  clock: systemClock,
  certificate,
  pendingMax,
  office: {
    claim: async name => await ask('claim', name) === true,
    take: async name => {
      const ticket = await ask('take', name)
      return typeof ticket === 'object' ? ticket : undefined
    }
  },
  enter: (ticket, socket) => {
    const relay = new Relay(entered += 2, socket, REQUEST_RING_BYTES)
    tell({ type: 'entered', lane: entered, ticket, ring: relay.ring })
    return relay
  }
})

async function open (lane: number, host: string, offer: Extract<ToLaneThread, { type: 'open' }>['offer']): Promise<void> {
  const controller = new AbortController()
  opening.set(lane, controller)
  try {
    const { socket, attach } = await openLane({ host, offer, certificate, signal: controller.signal })
    const relay = new Relay(lane, socket, RECEIVE_RING_BYTES)
    attach(relay)
    tell({ type: 'opened', lane, ring: relay.ring })
  } catch (error) {
    tell({ type: 'ended', lane, message: asError(error).message })
  } finally {
    opening.delete(lane)
  }
}

port.on('message', (message: ToLaneThread) => {
  switch (message.type) {
    case 'listen':
      door.listen(message.host, message.port, !isAlone).then(listened => { tell({ type: 'listening', ask: message.ask, port: listened }) }, error => {
        tell({ type: 'deaf', ask: message.ask, message: asError(error).message, code: systemCode(error) })
      })
      break
    case 'open': void open(message.lane, message.host, message.offer); break
    case 'ticket':
      asked.get(message.ask)?.(message.ticket)
      asked.delete(message.ask)
      break
    case 'write': relays.get(message.lane)?.write(message.bytes); break
    case 'room': relays.get(message.lane)?.room(); break
    case 'destroy':
      opening.get(message.lane)?.abort(new Error('nobody wants it any more'))
      relays.get(message.lane)?.destroy()
      break
    case 'close': void door.close(); break
  }
})
