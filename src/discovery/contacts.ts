import type { PeerId } from '@libp2p/interface'
import { PEERS_TRACKED_MAX } from '../base/index.ts'
import { contactOf, type Contact } from './contact.ts'
import { compareDistance } from './dht-key.ts'
import { KAD_PROTOCOL, type Network } from './network.ts'

/** The connected peers that speak the DHT's protocol: where each lookup begins. */
export class Contacts {
  readonly #network: Network
  readonly #onNew: () => void
  readonly #connected = new Map<string, Contact>()
  #registration: string | undefined

  constructor (network: Network, onNew: () => void) {
    this.#network = network
    this.#onNew = onNew
  }

  get size (): number { return this.#connected.size }

  async start (): Promise<void> {
    this.#registration = await this.#network.register(KAD_PROTOCOL, {
      onConnect: peerId => { this.#add(peerId) },
      onDisconnect: peerId => { this.#connected.delete(peerId.toString()) }
    })
    // The registration tells of peers identified from now on.
    for (const peerId of this.#network.getPeers()) {
      const peer = await this.#network.peerStore.get(peerId).catch(() => undefined) // gone again
      if (peer?.protocols.includes(KAD_PROTOCOL) === true) this.#add(peerId)
    }
  }

  stop (): void {
    if (this.#registration !== undefined) this.#network.unregister(this.#registration)
    this.#registration = undefined
    this.#connected.clear()
  }

  nearest (place: Uint8Array, count: number): Contact[] {
    return [...this.#connected.values()].sort((a, b) => compareDistance(place, a.kadId, b.kadId)).slice(0, count)
  }

  #add (peerId: PeerId): void {
    const id = peerId.toString()
    if (this.#connected.has(id) || this.#connected.size >= PEERS_TRACKED_MAX) return
    this.#connected.set(id, contactOf(peerId))
    this.#onNew()
  }
}
