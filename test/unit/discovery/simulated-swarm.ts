import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { randomInt, type Random } from '../../../src/base/index.ts'
import { contactOf, type Contact } from '../../../src/discovery/contact.ts'
import { commonPrefixLength, compareDistance } from '../../../src/discovery/dht-key.ts'

/** Peers with Kademlia routing tables, without a network: what each would answer. */
export interface SimulatedSwarm {
  contacts: Contact[]
  /** What a peer answers: the 20 nearest of those in its table. */
  knownBy: (contact: Contact, target: Uint8Array) => Contact[]
  /** The truth. */
  nearest: (target: Uint8Array, count: number) => Contact[]
}

export async function simulatedSwarm (count: number, random: Random): Promise<SimulatedSwarm> {
  const contacts = await Promise.all(Array.from({ length: count }, async () => contactOf(peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', random.bytes(32))))))
  const tables = new Map(contacts.map(contact => [contact.id, tableOf(contact, contacts, random)]))
  const sort = (target: Uint8Array, list: Contact[]): Contact[] => [...list].sort((a, b) => compareDistance(target, a.kadId, b.kadId))
  return {
    contacts,
    knownBy: (contact, target) => sort(target, tables.get(contact.id) ?? []).slice(0, 20),
    nearest: (target, wanted) => sort(target, contacts).slice(0, wanted)
  }
}

/** Up to 20 peers for each length of shared prefix, as k-buckets hold them. */
function tableOf (self: Contact, contacts: Contact[], random: Random): Contact[] {
  const buckets = new Map<number, Contact[]>()
  for (const contact of contacts) {
    if (contact === self) continue
    const length = commonPrefixLength(self.kadId, contact.kadId)
    const bucket = buckets.get(length) ?? []
    buckets.set(length, bucket)
    if (bucket.length < 20) bucket.push(contact)
    else bucket[randomInt(random, 20)] = contact
  }
  return [...buckets.values()].flat()
}
