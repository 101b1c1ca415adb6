import assert from 'node:assert/strict'
import { KiB, LOAD_PEERS_MAX, seededRandom } from '../../../src/base/index.ts'
import type { PeerStatus, ShoalNode } from '../../../src/node/types.ts'
import { CANCELLED, DATA, HEAD, NOT_HERE, STATE, encodeChange, encodeField, encodeHead, encodeIds, encodeState } from '../../../src/transfer/messages.ts'
import { encodeFrame } from '../../../src/transfer/wire.ts'
import { contentOf, sampleOf, type Sample } from '../../compliance/store-fixtures.ts'
import { Cluster } from '../../support/cluster.ts'
import { HostilePeer, aboutBlocks, dataFrames, flipped, truth, type Lies, type Say } from '../../support/hostile-peer.ts'
import { until } from '../../support/until.ts'

const BLOCK_BYTES = 64 * KiB

function modelOf (seed: number, blocks = 32): Sample {
  return sampleOf([{ path: 'model.bin', content: contentOf(seededRandom(seed), blocks * BLOCK_BYTES), sizes: Array.from({ length: blocks }, () => BLOCK_BYTES) }])
}

/** Resolves with the reason when `node` bans `peerId`. */
function banned (node: ShoalNode, peerId: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => { off(); reject(new Error(`${peerId} was not banned within 20 s`)) }, 20_000)
    const off = node.events.on('peer:banned', event => {
      if (event.peerId !== peerId) return
      clearTimeout(late)
      off()
      resolve(event.reason)
    })
  })
}

async function clean (node: ShoalNode, { bytes }: Sample): Promise<void> {
  const { bad, bytes: checked } = await node.verify()
  assert.deepEqual(bad, [])
  assert.equal(checked, bytes)
}

/** An answer with a head and half of its bytes, then what `then` says. */
function half (then: (id: number, rest: Uint8Array) => Uint8Array[]): Lies {
  return {
    answer: aboutBlocks(({ id, bytes = new Uint8Array(2) }, say) => {
      const middle = bytes.length >> 1
      say(encodeHead(id, bytes.length), ...dataFrames(id, bytes.subarray(0, middle)), ...then(id, bytes.subarray(middle)))
    })
  }
}

const only = (say: (id: number, bytes: Uint8Array) => Uint8Array[]): Lies => ({
  answer: aboutBlocks(({ id, bytes = new Uint8Array(1) }, tell) => { tell(...say(id, bytes)) })
})

const known = encodeState({ known: true, complete: false })

/** What it does, and what the ban says of it. */
const liars: Array<{ what: string, lies: Lies, reason: RegExp }> = [
  { what: 'flips a bit of a block', lies: only((id, bytes) => [encodeHead(id, bytes.length), ...dataFrames(id, flipped(bytes))]), reason: /not the ones it names/ },
  { what: 'announces another size and keeps to it', lies: only((id, bytes) => [encodeHead(id, bytes.length - 1), ...dataFrames(id, bytes.subarray(1))]), reason: /not the ones it names/ },
  { what: 'announces more than any block has', lies: only(id => [encodeHead(id, 5 * 1024 * KiB)]), reason: /5242880/ },
  { what: 'sends more than it announced', lies: half((id, rest) => [...dataFrames(id, rest), ...dataFrames(id, rest)]), reason: /nobody asked|more bytes|without a head/ },
  { what: 'sends bytes without a head', lies: only((id, bytes) => dataFrames(id, bytes)), reason: /without a head/ },
  { what: 'sends a second head', lies: half((id, rest) => [encodeHead(id, rest.length)]), reason: /second head/ },
  { what: 'answers a request that nobody made', lies: only(() => [encodeHead(999_999, 10)]), reason: /nobody asked/ },
  { what: 'says not-here of a request that nobody made', lies: only(() => encodeIds(NOT_HERE, [888_888])), reason: /nobody asked/ },
  { what: 'says cancelled of what was not', lies: only(id => encodeIds(CANCELLED, [id])), reason: /was not/ },
  { what: 'announces a frame of 4 GiB', lies: only(() => [Uint8Array.from([255, 255, 255, 255, DATA, 0, 0, 0, 0])]), reason: /bytes long/ },
  { what: 'sends a frame of an unknown type', lies: only(() => [encodeFrame(200, new Uint8Array(4))]), reason: /no place here/ },
  { what: 'sends a frame of the other protocol', lies: only(() => [known]), reason: /no place here/ },
  { what: 'sends a frame of no length', lies: only(() => [Uint8Array.from([0, 0, 0, 0, HEAD])]), reason: /bytes long/ },
  { what: 'sends an empty data frame', lies: only(id => [encodeFrame(DATA, Uint8Array.from([id, 0, 0, 0]))]), reason: /without data/ },
  { what: 'sends garbage for CBOR', lies: only(() => [encodeFrame(HEAD, Uint8Array.from([0xff, 0x13, 0x37]))]), reason: /DAG-CBOR/ },
  { what: 'sends CBOR that is not canonical', lies: only(() => [encodeFrame(NOT_HERE, Uint8Array.from([0x81, 0x18, 0x01]))]), reason: /DAG-CBOR/ },
  { what: 'tells an inventory of a file that is not', lies: { inventory: (_model, say) => { say(known, encodeField({ file: 7, offset: 0, bytes: new Uint8Array(4) })) } }, reason: /file 7/ },
  { what: 'tells a bitfield that is too long', lies: { inventory: (_model, say) => { say(known, encodeField({ file: 0, offset: 0, bytes: new Uint8Array(5) })) } }, reason: /bitfield of 5 bytes/ },
  { what: 'tells a bitfield far out', lies: { inventory: (_model, say) => { say(known, encodeField({ file: 0, offset: 0xffff_fff0, bytes: new Uint8Array(4) })) } }, reason: /bitfield of/ },
  { what: 'tells of a block that is not', lies: { inventory: (_model, say) => { say(known, encodeChange({ file: 0, have: [32], lost: [] })) } }, reason: /block 32/ },
  { what: 'tells an inventory of what it does not know', lies: { inventory: (_model, say) => { say(encodeState({ known: false, complete: false }), encodeChange({ file: 0, have: [1], lost: [] })) } }, reason: /does not know/ },
  { what: 'floods its inventory', lies: { inventory: (_model, say) => { for (let i = 0; i < 50; i++) say(Buffer.concat(Array.from({ length: 2_000 }, () => known))) } }, reason: /flood/ },
  { what: 'sends garbage for a state', lies: { inventory: (_model, say) => { say(encodeFrame(STATE, Uint8Array.from([0xa0]))) } }, reason: /keys/ }
]

describe('hostile: wrong bytes', function () {
  this.timeout(30_000)

  for (const [position, name] of ['the manifest', 'a file index'].entries()) {
    it(`bans who flips a bit of ${name}, and loads from an honest peer`, async () => {
      await using cluster = new Cluster()
      const sample = modelOf(10 + position)
      const target = position === 0 ? sample.cid : sample.files[0]?.index.cid.toString()
      await using liar = await HostilePeer.start({
        swarmKey: cluster.swarmKey,
        answer: (asked, say) => { truth(asked.cid.toString() === target && asked.bytes !== undefined ? { ...asked, bytes: flipped(asked.bytes) } : asked, say) }
      })
      liar.give(sample)
      await using honest = await HostilePeer.start({ swarmKey: cluster.swarmKey })
      honest.give(sample)
      const [node] = await cluster.spawn(1)
      assert.ok(node !== undefined)
      await node.connect(liar.address)
      const ban = banned(node, liar.id)
      const load = node.load(sample.cid)
      assert.match(await ban, /not the ones it names/)
      await node.connect(honest.address)
      assert.deepEqual((await load).peers, { [honest.id]: sample.bytes })
      await clean(node, sample)
      assert.equal(node.peers().find(peer => peer.peerId === liar.id)?.banned, true)
      assert.equal(node.peers().find(peer => peer.peerId === honest.id)?.banned, false)
    })
  }

  it('bans each of many kinds of liars, for its own reason, and loads from the one honest peer', async () => {
    await using cluster = new Cluster({ settings: { transfer: { peersMax: LOAD_PEERS_MAX } } })
    await using stack = new AsyncDisposableStack()
    const sample = modelOf(20)
    const [victim] = await cluster.spawn(1)
    assert.ok(victim !== undefined)
    const besiegers = await Promise.all(liars.map(async ({ what, lies, reason }) => {
      const liar = stack.use(await HostilePeer.start({ swarmKey: cluster.swarmKey, ...lies }))
      liar.give(sample)
      await victim.connect(liar.address)
      return { what, reason, liar, ban: banned(victim, liar.id) }
    }))
    const open = await victim.open(sample.cid)
    for (const { what, reason, ban } of besiegers) {
      const why = await ban.catch(error => { throw new Error(what, { cause: error }) })
      assert.match(why, reason, `${what}: ${why}`)
    }
    const honest = stack.use(await HostilePeer.start({ swarmKey: cluster.swarmKey }))
    honest.give(sample)
    await victim.connect(honest.address)
    const { peers } = await open.done
    open.close()
    for (const { what, reason, liar } of besiegers) {
      // Who sends more than it announced has sent one good block first.
      assert.ok((peers[liar.id] ?? 0) <= BLOCK_BYTES, what)
      const seen: PeerStatus | undefined = victim.peers().find(peer => peer.peerId === liar.id)
      assert.equal(seen?.banned, true, what)
      assert.match(seen?.banReason ?? '', reason, what)
    }
    assert.equal(victim.peers().find(peer => peer.peerId === honest.id)?.banned, false)
    await clean(victim, sample)
    assert.ok((await victim.status()).problems.some(problem => problem.includes(`${liars.length} peers are banned`)))
  })

  it('bans who sends blocks but for a byte, says that it lacks them, and has them again', async () => {
    await using cluster = new Cluster()
    const sample = modelOf(22)
    const blocks = [...sample.files[0]?.index.value.blocks ?? []].map(String)
    let tell: Say | undefined
    let answers = 0
    await using liar = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      inventory: (_model, say) => {
        tell = say
        say(known, encodeChange({ file: 0, have: blocks.map((_, block) => block), lost: [] }))
      },
      answer: aboutBlocks(({ id, cid, bytes = new Uint8Array(2) }, say) => {
        answers++
        say(encodeHead(id, bytes.length), ...dataFrames(id, bytes.subarray(0, -1)), ...encodeIds(NOT_HERE, [id]))
        setTimeout(() => { tell?.(encodeChange({ file: 0, have: [blocks.indexOf(cid.toString())], lost: [] })) }, 5)
      })
    })
    liar.give(sample)
    await using honest = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    honest.give(sample)
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    await node.connect(liar.address)
    const ban = banned(node, liar.id)
    const load = node.load(sample.cid)
    assert.match(await ban, /blocks in part/)
    // What it had been asked for before is under way.
    assert.ok(answers <= blocks.length, `${answers} answers`)
    await node.connect(honest.address)
    assert.deepEqual((await load).peers, { [honest.id]: sample.bytes })
    await clean(node, sample)
  })

  it('goes on without who cuts its answers short', async () => {
    await using cluster = new Cluster({ settings: { transfer: { requestTimeoutMs: 1_000 } } })
    const sample = modelOf(21)
    let cuts = 0
    await using cutter = await HostilePeer.start({
      swarmKey: cluster.swarmKey,
      answer: aboutBlocks(({ id, bytes = new Uint8Array(2) }, say) => {
        cuts++
        say(encodeHead(id, bytes.length), ...dataFrames(id, bytes.subarray(0, -1)))
      })
    })
    cutter.give(sample)
    await using honest = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    honest.give(sample)
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    await node.connect(cutter.address)
    const load = node.load(sample.cid)
    await until('a connection was cut', () => cuts > 0)
    await node.connect(honest.address)
    assert.deepEqual((await load).peers, { [honest.id]: sample.bytes })
    await clean(node, sample)
  })

})
