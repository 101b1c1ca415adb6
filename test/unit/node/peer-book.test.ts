import assert from 'node:assert/strict'
import type { Libp2p, Peer, PeerId } from '@libp2p/interface'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { seededRandom, silentLogger } from '../../../src/base/index.ts'
import { PeerBook } from '../../../src/node/peer-book.ts'
import { fastClock } from '../../../scripts/lib/fast-clock.ts'
import { until } from '../../support/until.ts'

const random = seededRandom(3)
const ids = await Promise.all(Array.from({ length: 61 }, async () => peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', random.bytes(32)))))
const [self, ...others] = ids as [PeerId, ...PeerId[]]

/** A host that remembers `others`, none of which answers but those that are up; `dialledAt`: when each was last dialled with success, in a former life. */
class Host {
  readonly dialled: string[] = []
  readonly up = new Set<string>()
  readonly connected = new Set<string>()
  readonly book: PeerBook

  constructor (dialledAt: (position: number) => number | undefined = () => undefined) {
    const all = others.map((id, position) => {
      const at = dialledAt(position)
      return { id, metadata: new Map(at === undefined ? [] : [['last-dial-success', new TextEncoder().encode(String(at))]]) }
    }) as Peer[]
    const network = {
      peerId: self,
      getPeers: () => others.filter(id => this.connected.has(id.toString())),
      peerStore: { all: async () => await Promise.resolve(all) },
      dial: async (id: PeerId) => {
        this.dialled.push(id.toString())
        if (!this.up.has(id.toString())) throw new Error('nobody there')
        this.connected.add(id.toString())
        await Promise.resolve()
      }
    } as unknown as Libp2p
    this.book = new PeerBook({ network, clock: fastClock(1_000), logger: silentLogger }, { join: [] })
  }
}

const name = (position: number): string => String(others[position])

describe('a node that is alone', () => {
  it('dials each of those it remembers in its turn, however many of the first are gone', async () => {
    const host = new Host()
    host.up.add(name(59))
    host.book.start()
    await until('the last of them is found', () => host.connected.size > 0)
    await host.book.stop()
    assert.equal(new Set(host.dialled).size, 60)
    assert.ok(host.dialled.length <= 80, String(host.dialled.length))
  })

  it('dials each time those it was connected to last, and the others in turns beside them', async () => {
    const host = new Host(position => position < 30 ? undefined : 1_000 + position)
    host.book.start()
    await until('it has tried for long', () => host.dialled.length >= 140)
    await host.book.stop()
    const times = others.map(id => host.dialled.slice(0, 140).filter(other => other === id.toString()).length)
    assert.deepEqual(times.slice(50), Array.from({ length: 10 }, () => 7))
    assert.ok(times.slice(0, 50).every(count => count === 1 || count === 2))
    assert.deepEqual(host.dialled.slice(0, 10), Array.from({ length: 10 }, (_, i) => name(59 - i)))
  })

  it('knows who was connected in this life, by whomever', async () => {
    const host = new Host(position => 1_000 + position)
    host.connected.add(name(5))
    host.book.start()
    await until('it was seen', () => host.book.connected().length > 0)
    await new Promise(resolve => { setTimeout(resolve, 50) })
    host.connected.clear()
    await until('it is dialled', () => host.dialled.length > 0)
    await host.book.stop()
    assert.equal(host.dialled[0], name(5))
  })

  it('says how many it remembers when none of them answered', async () => {
    const host = new Host()
    assert.equal(host.book.unreached, 0)
    host.book.start()
    await until('it has tried', () => host.book.unreached > 0)
    assert.equal(host.book.unreached, 60)
    host.connected.add(name(1))
    assert.equal(host.book.unreached, 0)
    await host.book.stop()
  })
})
