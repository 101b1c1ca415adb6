import { connect, type Socket } from 'node:net'
import { multiaddr, type Multiaddr } from '@multiformats/multiaddr'
import type { Network } from '../../../src/discovery/index.ts'
import { Listener, freePort } from './offers.ts'
import type { Peers, PeersInit, TestPeer } from '../transfer/peers.ts'

/** What stands between a loader and a lane. */
export interface Road {
  /** For each new lane: cut after so many bytes of the server's; undefined: never. */
  cutAfter?: () => number | undefined
  /** Bytes a second that come through. */
  bytesPerSecond?: number
  /** So many bytes of the server's come through on each lane, and then none; nothing is closed. */
  stopAfter?: number
}

/** Another address of this machine, so that a proxy has the very ports of what it stands for. */
const OTHER = '127.0.0.2'
const STEP_MS = 50

/** A peer that is reached through a TCP proxy: its lanes can be cut and slowed, while its libp2p connection stays whole. */
export class Remote implements AsyncDisposable {
  readonly peer: TestPeer
  cuts = 0
  /** Lanes that were opened. */
  lanes = 0
  /** A lane came to where it stops. */
  stopped = false
  readonly #address: Multiaddr
  readonly #listeners: Listener[]

  private constructor (peer: TestPeer, address: Multiaddr) {
    this.peer = peer
    this.#address = address
    this.#listeners = []
  }

  static async add (peers: Peers, road: Road, init: PeersInit = {}): Promise<Remote> {
    const port = await freePort()
    const peer = await peers.add({ ...init, transport: 'tcp', lane: port })
    const own = Number(peer.network.getMultiaddrs()[0]?.getComponents().find(({ name }) => name === 'tcp')?.value)
    const remote = new Remote(peer, multiaddr(`/ip4/${OTHER}/tcp/${own}/p2p/${peer.id}`))
    remote.#listeners.push(
      await Listener.plain(socket => { forward(socket, own) }, OTHER, own),
      await Listener.plain(socket => { remote.#lane(socket, port, road) }, OTHER, port)
    )
    return remote
  }

  async connect (loader: { network: Network }): Promise<void> { await loader.network.dial(this.#address) }

  async [Symbol.asyncDispose] (): Promise<void> { for (const listener of this.#listeners) await listener[Symbol.asyncDispose]() }

  #lane (socket: Socket, port: number, { cutAfter, bytesPerSecond, stopAfter = Infinity }: Road): void {
    this.lanes++
    const server = forward(socket, port, bytesPerSecond)
    let left = cutAfter?.() ?? Infinity
    let open = stopAfter
    server.on('data', chunk => {
      open -= chunk.length
      if (open < 0) {
        this.stopped = true
        server.unpipe(socket)
        server.pause()
      }
      left -= chunk.length
      if (left > 0 || socket.destroyed) return
      this.cuts++
      // Once a reset, once an end without one.
      if (this.cuts % 2 === 0) socket.resetAndDestroy()
      else socket.destroy()
      server.destroy()
    })
  }
}

function forward (socket: Socket, port: number, bytesPerSecond?: number): Socket {
  const server = connect({ host: '127.0.0.1', port, noDelay: true })
  for (const [from, to] of [[socket, server], [server, socket]] as const) {
    from.on('error', () => undefined)
    from.once('close', () => { to.destroy() })
  }
  socket.pipe(server)
  if (bytesPerSecond === undefined) { server.pipe(socket); return server }
  const step = Math.max(1, Math.round(bytesPerSecond * STEP_MS / 1000))
  server.once('connect', () => {
    // The handshake goes through: it is the blocks that are slow.
    let free = 4_000
    const timer = setInterval(() => {
      const chunk = (server.read(Math.min(step + free, server.readableLength)) as Buffer | null)
      if (chunk === null) return
      free = Math.max(0, free - chunk.length)
      socket.write(chunk)
    }, STEP_MS)
    server.once('close', () => { clearInterval(timer) })
    server.on('readable', () => undefined)
  })
  return server
}
