import type { PeerId } from '@libp2p/interface'
import { contactOf, type Contact } from './contact.ts'
import { compareDistance } from './dht-key.ts'
import { KAD_PROTOCOL, type Network } from './network.ts'

/** The connected peers, as the DHT sees them: where each lookup begins. Bounded by the network's number of connections. */
export class Contacts {
  readonly #network: Network
  readonly #onReady: () => void
  /** Those that said that they speak the DHT's protocol. */
  readonly #ready = new Set<string>()
  readonly #contacts = new Map<string, Contact>()
  #registration: string | undefined

  constructor (network: Network, onReady: () => void) {
    this.#network = network
    this.#onReady = onReady
  }

  /** Whether there is anyone to announce to. */
  get ready (): boolean { return this.#ready.size > 0 }

  async start (): Promise<void> {
    this.#registration = await this.#network.register(KAD_PROTOCOL, {
      onConnect: peerId => { this.#add(peerId) },
      onDisconnect: peerId => {
        this.#ready.delete(peerId.toString())
        this.#contacts.delete(peerId.toString())
      }
    })
    // The registration tells of peers that identify themselves from now on.
    for (const peerId of this.#network.getPeers()) {
      const peer = await this.#network.peerStore.get(peerId).catch(() => undefined) // gone again
      if (peer?.protocols.includes(KAD_PROTOCOL) === true) this.#add(peerId)
    }
  }

  stop (): void {
    if (this.#registration !== undefined) this.#network.unregister(this.#registration)
    this.#registration = undefined
    this.#ready.clear()
    this.#contacts.clear()
  }

  /** Of all connected peers: one that has not yet said what it speaks is worth a try. */
  nearest (place: Uint8Array, count: number): Contact[] {
    return this.#network.getPeers().map(peerId => this.#contactOf(peerId)).sort((a, b) => compareDistance(place, a.kadId, b.kadId)).slice(0, count)
  }

  #add (peerId: PeerId): void {
    const id = peerId.toString()
    if (this.#ready.has(id)) return
    this.#ready.add(id)
    this.#onReady()
  }

  #contactOf (peerId: PeerId): Contact {
    const id = peerId.toString()
    let contact = this.#contacts.get(id)
    if (contact === undefined) {
      contact = contactOf(peerId)
      // A peer that disconnects is taken out only if it spoke the protocol.
      if (this.#ready.has(id)) this.#contacts.set(id, contact)
    }
    return contact
  }
}
