import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { NoProviderError, abortReason, seededRandom, silentLogger, systemClock, type AbortOptions } from '../../../src/base/index.ts'
import { MemoryRendezvous, createMemoryRouter } from '../../../src/discovery/index.ts'
import { encodeFileIndex, encodeManifest, hashBlock } from '../../../src/model/index.ts'
import { Finding, findModel, type FindComponents } from '../../../src/node/find-model.ts'

const index = encodeFileIndex({ version: 1, size: 1, sha256: randomBytes(32), chunker: 'fixed', blocks: [hashBlock(randomBytes(1))], sizes: [1], gitSha1: undefined })
const manifest = encodeManifest({ version: 1, files: [{ path: 'f', size: 1, index: index.cid }] })
/** How long those who are said to have a model get before others are asked. */
const AHEAD_MS = 1_000

describe('finding a model that somebody is said to have', () => {
  /** `silent` never answers, `empty` says that it has nothing; all others give what they are asked for. */
  const find = async (hints: string[]): Promise<{ from: string[], askedBefore: string[], firstWaitMs: number }> => {
    const rendezvous = new MemoryRendezvous()
    const routers = ['self', 'holder'].map(peerId => createMemoryRouter(rendezvous, { peerId, multiaddrs: () => [] }))
    for (const router of routers) await router.start()
    const [own, holder] = routers
    assert.ok(own !== undefined && holder !== undefined)
    holder.announce([manifest.cid])
    const asked: string[] = []
    let firstWaitMs = 0
    const clock: FindComponents['clock'] = { ...systemClock, setTimeout: (work, delayMs) => { firstWaitMs ||= delayMs; return systemClock.setTimeout(work, delayMs / 50) } }
    const fetchMetadata = async (cid: { toString: () => string }, peers: string[], _bytesMax: number, { signal }: AbortOptions = {}): Promise<{ bytes: Uint8Array, from: string }> => {
      for (const peer of peers) {
        asked.push(peer)
        if (peer === 'silent') await new Promise((_resolve, reject) => { signal?.addEventListener('abort', () => { reject(abortReason(signal)) }, { once: true }) })
        if (peer !== 'empty') return { bytes: [manifest, index].find(each => each.cid.toString() === cid.toString())?.bytes ?? assert.fail(), from: peer }
      }
      throw new NoProviderError('none of them')
    }
    const components = { exchange: { fetchMetadata, isBanned: () => false }, router: own, peers: { connected: () => [], learn: async () => undefined }, clock, random: seededRandom(1), logger: silentLogger } as unknown as FindComponents
    const finding = new Finding(manifest.cid)
    const { model, from } = await findModel(components, manifest.cid, finding, { hints, signal: AbortSignal.timeout(5_000) })
    assert.equal(model.manifest.cid.toString(), manifest.cid.toString())
    assert.ok(hints.every(hint => finding.asked.has(hint)))
    for (const router of routers) await router.stop()
    return { from: [...from], askedBefore: asked.slice(0, hints.length), firstWaitMs }
  }

  it('asks that one, and searches for nobody', async () => {
    assert.deepEqual(await find(['named']), { from: ['named'], askedBefore: ['named'], firstWaitMs: AHEAD_MS })
  })

  it('searches at once when that one has it not', async () => {
    assert.deepEqual((await find(['empty'])).from, ['holder'])
  })

  it('searches a second later when that one does not answer', async () => {
    assert.deepEqual(await find(['silent']), { from: ['holder'], askedBefore: ['silent'], firstWaitMs: AHEAD_MS })
  })

  it('searches at once when nobody is named', async () => {
    assert.deepEqual((await find([])).from, ['holder'])
  })
})
