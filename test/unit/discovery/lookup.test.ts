import assert from 'node:assert/strict'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { DHT_LOOKUP_ASKED_MAX, seededRandom } from '../../../src/base/index.ts'
import { contactOf, type Contact } from '../../../src/discovery/contact.ts'
import { lookup } from '../../../src/discovery/lookup.ts'
import { simulatedSwarm, type SimulatedSwarm } from './simulated-swarm.ts'

const SEED = 20261121
const forever = new AbortController().signal
const ids = (contacts: Contact[]): string[] => contacts.map(contact => contact.id)

describe('a lookup', () => {
  const random = seededRandom(SEED)
  let swarm: SimulatedSwarm

  before(async () => { swarm = await simulatedSwarm(300, random) })

  const find = async (target: Uint8Array, seeds: Contact[], ask: (contact: Contact) => Promise<Contact[]>, signal = forever): Promise<Contact[]> =>
    await lookup({ target, seeds, self: 'nobody', ask: async contact => await ask(contact), signal })

  it(`finds the nearest twenty from any peer (seed ${SEED})`, async () => {
    for (let round = 0; round < 30; round++) {
      const target = random.bytes(32)
      const seed = swarm.contacts[round] as Contact
      let asked = 0
      const found = await find(target, [seed], async contact => { asked++; return swarm.knownBy(contact, target) })
      assert.deepEqual(ids(found), ids(swarm.nearest(target, 20)), `round ${round}`)
      assert.ok(asked < 60, `asked ${asked}`)
    }
  })

  it('in a hurry, asks fewer, and finds most', async () => {
    const total = { asked: 0, right: 0, askedByOthers: 0 }
    const own = seededRandom(SEED + 1)
    for (let round = 0; round < 30; round++) {
      const target = own.bytes(32)
      const found = await lookup({ target, seeds: swarm.contacts.slice(round, round + 20), self: 'nobody', signal: forever, quiet: 6, ask: async contact => { total.asked++; return swarm.knownBy(contact, target) } })
      assert.equal(found.length, 20)
      await find(target, swarm.contacts.slice(round, round + 20), async contact => { total.askedByOthers++; return swarm.knownBy(contact, target) })
      const nearest = new Set(ids(swarm.nearest(target, 20)))
      total.right += ids(found).filter(id => nearest.has(id)).length
    }
    assert.ok(total.right > 0.95 * 30 * 20, `${total.right} of ${30 * 20}`)
    assert.ok(total.asked < 0.9 * total.askedByOthers, `asked ${total.asked} of ${total.askedByOthers}`)
  })

  it('goes around the dead, and says nothing of them', async () => {
    const target = random.bytes(32)
    const dead = new Set(ids(swarm.nearest(target, 200)).filter((_, i) => i % 3 === 0))
    const found = await find(target, swarm.contacts.slice(0, 20), async contact => {
      if (dead.has(contact.id)) throw new Error('gone')
      return swarm.knownBy(contact, target)
    })
    const living = ids(swarm.nearest(target, 300)).filter(id => !dead.has(id))
    assert.deepEqual(ids(found), living.slice(0, 20))
  })

  it('ends with nothing when there is nobody, or nobody answers', async () => {
    assert.deepEqual(await find(random.bytes(32), [], async () => []), [])
    assert.deepEqual(await find(random.bytes(32), swarm.contacts.slice(0, 5), async () => { throw new Error('gone') }), [])
  })

  it('never asks this node, nor anyone twice', async () => {
    const target = random.bytes(32)
    const self = swarm.nearest(target, 1)[0] as Contact
    const asked: string[] = []
    const found = await lookup({ target, seeds: [self, ...swarm.contacts.slice(0, 3)], self: self.id, signal: forever, ask: async contact => { asked.push(contact.id); return swarm.knownBy(contact, target) } })
    assert.ok(!asked.includes(self.id) && !ids(found).includes(self.id))
    assert.equal(new Set(asked).size, asked.length)
  })

  it('is not led on for ever by peers who make up nearer ones', async () => {
    let made = 0
    const liar = async (): Promise<Contact[]> => await Promise.all(Array.from({ length: 20 }, async () => contactOf(peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', seededRandom(made++).bytes(32))))))
    let asked = 0
    await find(random.bytes(32), swarm.contacts.slice(0, 3), async () => { asked++; return await liar() })
    assert.ok(asked <= DHT_LOOKUP_ASKED_MAX, `asked ${asked}`)
  })

  let made = 0
  /** Nearer than any that is there, each nearer than those before. */
  const madeUp = (target: Uint8Array, count: number): Contact[] => Array.from({ length: count }, () => {
    const kadId = target.slice()
    const view = new DataView(kadId.buffer)
    view.setUint32(28, (view.getUint32(28) ^ (0xffff_ffff - made++)) >>> 0)
    return { ...swarm.contacts[0] as Contact, id: `made up ${made}`, kadId }
  })

  it('finds the nearest beside a dozen that answer and name nearer ones that are not there', async () => {
    const own = seededRandom(SEED + 2)
    for (let round = 0; round < 10; round++) {
      const target = own.bytes(32)
      const liars = new Set(ids(swarm.nearest(target, 100)).filter((_, i) => i % 8 === 0))
      let asked = 0
      let isCutShort = false
      const found = await lookup({
        target,
        seeds: swarm.contacts.slice(round, round + 20),
        self: 'nobody',
        signal: forever,
        onCutShort: () => { isCutShort = true },
        ask: async contact => {
          asked++
          if (contact.id.startsWith('made up')) throw new Error('nobody there')
          return liars.has(contact.id) ? madeUp(target, 20) : swarm.knownBy(contact, target)
        }
      })
      assert.deepEqual(ids(found), ids(swarm.nearest(target, 20)), `round ${round}`)
      assert.ok(!isCutShort && asked < DHT_LOOKUP_ASKED_MAX, `asked ${asked}`)
    }
  })

  it('says so when it may ask no more and has not come to its end, and not else', async () => {
    const target = random.bytes(32)
    let times = 0
    const find = async (ask: (contact: Contact) => Contact[]): Promise<number> => {
      times = 0
      await lookup({ target, seeds: swarm.contacts.slice(0, 20), self: 'nobody', signal: forever, onCutShort: () => { times++ }, ask: async contact => await Promise.resolve(ask(contact)) })
      return times
    }
    assert.equal(await find(() => madeUp(target, 20)), 1, 'each answers, and names others that answer')
    assert.equal(await find(contact => swarm.knownBy(contact, target)), 0)
    assert.equal(await find(() => []), 0)
  })

  it('ends with the signal, and tells those it had asked', async () => {
    const stop = new AbortController()
    const told: boolean[] = []
    const asking = lookup({
      target: random.bytes(32),
      seeds: swarm.contacts.slice(0, 10),
      self: 'nobody',
      signal: stop.signal,
      ask: async (_contact, signal) => await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => { told.push(true); reject(new Error('stopped')) })
        if (told.length === 0) setImmediate(() => { stop.abort() })
      })
    })
    await assert.rejects(asking, { name: 'AbortError' })
    assert.equal(told.length, 10)
  })

  it('does not wait for the far away when the nearest have answered', async () => {
    const target = random.bytes(32)
    const far = swarm.nearest(target, 300).slice(-5)
    const found = await find(target, [...far, ...swarm.nearest(target, 20)], async contact => {
      if (far.includes(contact)) return await new Promise(() => undefined)
      return swarm.knownBy(contact, target)
    })
    assert.deepEqual(ids(found), ids(swarm.nearest(target, 20)))
  })
})
