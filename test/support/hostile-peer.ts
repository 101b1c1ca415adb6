import type { Connection, Stream } from '@libp2p/interface'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import type { CID } from 'multiformats/cid'
import { silentLogger } from '../../src/base/index.ts'
import { createNetwork, type Network } from '../../src/discovery/index.ts'
import { framesOver, type FrameStream } from '../../src/transfer/frame-stream.ts'
import {
  BLOCK_PROTOCOL, CANCELLED, DATA, INVENTORY_PROTOCOL, NOT_HERE, REQUEST, blockServerRules, decodeIds, decodeOpen, decodeRequests, encodeHead, encodeIds, encodeState,
  inventoryServerRules
} from '../../src/transfer/messages.ts'
import { STREAM_DATA, packData } from '../../src/transfer/wire.ts'
import type { Sample } from '../compliance/store-fixtures.ts'

/** One request; `bytes` is the right answer, if this peer has it. */
export interface Asked { id: number, cid: CID, bytes: Uint8Array | undefined }
/** Puts frames, or bytes that only look like some, on the stream. */
export type Say = (...frames: Uint8Array[]) => void

/** Where a peer departs from the truth. What is not given it does as it should. */
export interface Lies {
  answer?: (asked: Asked, say: Say) => void
  inventory?: (model: CID, say: Say) => void
}

export interface HostilePeerInit extends Lies { swarmKey: Uint8Array, transport?: 'memory' | 'tcp' }

let made = 0

/**
 * A real libp2p host that speaks Shoal's protocols with the room's own wire code, and lies on request:
 *
 *     await using liar = await HostilePeer.start({ swarmKey, answer: ({ id }, say) => { say(encodeHead(id, 1)) } })
 *     liar.give(sample)
 *     await node.connect(liar.address)
 */
export class HostilePeer implements AsyncDisposable {
  readonly network: Network
  /** CIDs it was asked for, in order. */
  readonly asked: string[] = []
  readonly #lies: Lies
  readonly #bytes = new Map<string, Uint8Array>()

  static async start (init: HostilePeerInit): Promise<HostilePeer> {
    const transport = init.transport ?? 'memory'
    const network = await createNetwork({
      transport,
      listen: [transport === 'memory' ? `/memory/hostile-${++made}` : '/ip4/127.0.0.1/tcp/0'],
      swarmKey: init.swarmKey,
      maxConnections: 300,
      inboundPerSecond: 1_000,
      logger: silentLogger
    })
    await network.start()
    const peer = new HostilePeer(network, init)
    await network.handle(BLOCK_PROTOCOL, stream => { peer.#serveBlocks(stream) }, { maxInboundStreams: 64 })
    await network.handle(INVENTORY_PROTOCOL, stream => { peer.#serveInventory(stream) }, { maxInboundStreams: 64 })
    return peer
  }

  private constructor (network: Network, lies: Lies) {
    this.network = network
    this.#lies = lies
  }

  get id (): string { return this.network.peerId.toString() }
  get address (): string { return this.network.getMultiaddrs()[0]?.toString() ?? '' }

  /** From now on it has this, as far as it tells the truth. */
  give (...samples: Sample[]): this {
    for (const { model, files } of samples) {
      this.giveBytes(model.manifest.cid, model.manifest.bytes)
      for (const { index, content } of files) {
        this.giveBytes(index.cid, index.bytes)
        let offset = 0
        for (const [block, cid] of index.value.blocks.entries()) {
          this.giveBytes(cid, content.subarray(offset, offset += index.value.sizes[block] ?? 0))
        }
      }
    }
    return this
  }

  giveBytes (cid: CID, bytes: Uint8Array): void { this.#bytes.set(cid.toString(), bytes) }

  async connect (address: string): Promise<Connection> {
    return await this.network.dial(multiaddr(address))
  }

  /** A stream to a connected peer, bare: nobody reads it until the caller does. */
  async open (peerId: string, protocol: string): Promise<Stream> {
    return await this.network.dialProtocol(peerIdFromString(peerId), protocol, { maxOutboundStreams: 100_000 })
  }

  async [Symbol.asyncDispose] (): Promise<void> { await this.network.stop() }

  #serveBlocks (stream: Stream): void {
    const waiting: Uint8Array[] = []
    const pump = (): void => { while (waiting.length > 0 && !frames.blocked) frames.send(waiting.shift() ?? new Uint8Array()) }
    const say: Say = (...more) => { waiting.push(...more); pump() }
    const frames: FrameStream = framesOver(stream)(blockServerRules, {
      frame: (type, body) => {
        if (type !== REQUEST) { for (const id of decodeIds(body)) say(...encodeIds(CANCELLED, [id])); return }
        for (const { id, cid } of decodeRequests(body)) {
          const asked = { id, cid, bytes: this.#bytes.get(cid.toString()) }
          this.asked.push(cid.toString())
          const answer = this.#lies.answer ?? truth
          answer(asked, say)
        }
      },
      data: () => undefined,
      drained: pump,
      closed: () => { waiting.length = 0 }
    })
  }

  #serveInventory (stream: Stream): void {
    const frames: FrameStream = framesOver(stream)(inventoryServerRules, {
      frame: (_type, body) => {
        const model = decodeOpen(body)
        const say: Say = (...more) => { for (const frame of more) frames.send(frame) }
        if (this.#lies.inventory !== undefined) { this.#lies.inventory(model, say); return }
        const known = this.#bytes.has(model.toString())
        say(encodeState({ known, complete: known }))
      },
      data: () => undefined,
      drained: () => undefined,
      closed: () => undefined
    })
  }
}

/** What an honest peer says. */
export function truth ({ id, bytes }: Asked, say: Say): void {
  if (bytes === undefined) { say(...encodeIds(NOT_HERE, [id])); return }
  say(encodeHead(id, bytes.length), ...dataFrames(id, bytes))
}

export function dataFrames (id: number, bytes: Uint8Array): Uint8Array[] {
  const all: Uint8Array[] = []
  for (let at = 0; at < bytes.length;) {
    const packed = packData(DATA, id, bytes, at, STREAM_DATA, length => new Uint8Array(length))
    all.push(packed.frames)
    at += packed.bytes
  }
  return all
}

/** A copy with one bit turned over, in the middle. */
export function flipped (bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes) // the slice() of a Buffer is none
  const at = copy.length >> 1
  copy[at] = (copy[at] ?? 0) ^ 1
  return copy
}

/** Lies about blocks only: metadata is given as it is, so that a load comes to the blocks. */
export function aboutBlocks (answer: NonNullable<Lies['answer']>): Lies['answer'] {
  return (asked, say) => { (asked.cid.code === 0x55 ? answer : truth)(asked, say) }
}
