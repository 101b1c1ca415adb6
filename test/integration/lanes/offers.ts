import { once } from 'node:events'
import { createServer, connect as connectPlain, type AddressInfo, type Server, type Socket } from 'node:net'
import { connect, createServer as createTlsServer, type ConnectionOptions } from 'node:tls'
import { peerIdFromString } from '@libp2p/peer-id'
import type { Network } from '../../../src/discovery/index.ts'
import { framesOver } from '../../../src/transfer/frame-stream.ts'
import { createLaneCertificate, type LaneCertificate } from '../../../src/transfer/lanes/certificate.ts'
import {
  LANE, LANE_ALPN, LANE_PROTOCOL, decodeLane, encodeAsk, encodeHello, encodeLane, encodeWelcome, laneClientRules, laneServerRules, type LaneOffer
} from '../../../src/transfer/lanes/messages.ts'
import { serverName } from '../../../src/transfer/lanes/tickets.ts'

export const certificate = createLaneCertificate()

/** Asks a connected peer for a lane as a node does; undefined: it has none. */
export async function ask (from: { network: Network }, peerId: string, fingerprint: Uint8Array = certificate.fingerprint): Promise<LaneOffer | undefined> {
  const stream = await from.network.dialProtocol(peerIdFromString(peerId), LANE_PROTOCOL)
  return await new Promise((resolve, reject) => {
    const frames = framesOver(stream)(laneClientRules, {
      frame: (type, body) => {
        frames.close()
        resolve(type === LANE ? decodeLane(body) : undefined)
      },
      data: () => undefined,
      drained: () => undefined,
      closed: reject
    })
    frames.send(encodeAsk(fingerprint))
  })
}

/** Makes a peer whose own lanes are off offer these. */
export async function offering (peer: { network: Network }, offer: () => LaneOffer): Promise<void> {
  await peer.network.handle(LANE_PROTOCOL, stream => {
    const frames = framesOver(stream)(laneServerRules, {
      frame: () => { frames.send(encodeLane(offer())) },
      data: () => undefined,
      drained: () => undefined,
      closed: () => undefined
    })
  })
}

export function offerOf (port: number, fingerprint: Uint8Array = certificate.fingerprint): LaneOffer {
  return { port, fingerprint, name: Buffer.alloc(16, 7), secret: Buffer.alloc(32, 9), ttlMs: 10_000 }
}

export interface Knock { shows?: LaneCertificate | undefined, says?: Uint8Array, tls?: ConnectionOptions }
export interface Answer { welcome: boolean, closed: boolean, socket: Socket }

/** Comes to a lane port over TLS with what it was offered, or something else. Resolves once it is let in, or sent away. */
export async function knock (offer: LaneOffer, { shows = certificate, says = encodeHello(offer.secret), tls = {} }: Knock = {}): Promise<Answer> {
  const socket = connect({
    host: '127.0.0.1', port: offer.port, servername: serverName(offer.name), ALPNProtocols: [LANE_ALPN], key: shows.key, cert: shows.cert, rejectUnauthorized: false, minVersion: 'TLSv1.3', ...tls
  })
  return await answerOf(socket, () => { socket.once('secureConnect', () => { socket.write(says) }) })
}

/** Comes to a port without TLS. */
export async function knockPlain (port: number, says: Uint8Array): Promise<Answer> {
  const socket = connectPlain({ host: '127.0.0.1', port })
  return await answerOf(socket, () => { socket.once('connect', () => { socket.write(says) }) })
}

async function answerOf (socket: Socket, begin: () => void): Promise<Answer> {
  const welcome = Buffer.from(encodeWelcome())
  let said = Buffer.alloc(0)
  begin()
  return await new Promise(resolve => {
    socket.on('error', () => undefined)
    socket.once('close', () => { resolve({ welcome: false, closed: true, socket }) })
    socket.on('data', (chunk: Uint8Array) => {
      said = Buffer.concat([said, chunk])
      if (said.equals(welcome)) resolve({ welcome: true, closed: false, socket })
    })
  })
}

/** A server of whatever `arrived` does with what comes. */
export class Listener implements AsyncDisposable {
  readonly sockets = new Set<Socket>()
  readonly #server: Server

  private constructor (server: Server) {
    this.#server = server
    server.on('connection', (socket: Socket) => {
      this.sockets.add(socket)
      socket.on('error', () => undefined)
      socket.once('close', () => { this.sockets.delete(socket) })
    })
  }

  static async plain (arrived: (socket: Socket) => void, host = '127.0.0.1', port = 0): Promise<Listener> {
    return await new Listener(createServer({ noDelay: true }, socket => {
      arrived(socket)
      socket.resume() // or it never sees the other side's end
    })).#listen(host, port)
  }

  static async tls (certificate: LaneCertificate, arrived: (socket: Socket) => void): Promise<Listener> {
    return await new Listener(createTlsServer({ key: certificate.key, cert: certificate.cert, ALPNProtocols: [LANE_ALPN] }, socket => {
      socket.on('error', () => undefined)
      arrived(socket)
    })).#listen('127.0.0.1', 0)
  }

  get port (): number { return (this.#server.address() as AddressInfo).port }

  async [Symbol.asyncDispose] (): Promise<void> {
    this.#server.close()
    for (const socket of this.sockets) socket.destroy()
    await once(this.#server, 'close')
  }

  async #listen (host: string, port: number): Promise<this> {
    this.#server.listen({ host, port })
    await once(this.#server, 'listening')
    return this
  }
}

/** A port that nobody listens on, just now. */
export async function freePort (): Promise<number> {
  const listener = await Listener.plain(() => undefined)
  const { port } = listener
  await listener[Symbol.asyncDispose]()
  return port
}
