import assert from 'node:assert/strict'
import { REPLICA_FOUND_MAX, REPLICA_SEARCHES_WAITING_MAX, silentLogger, systemClock } from '../../../src/base/index.ts'
import type { Provider } from '../../../src/discovery/index.ts'
import { Searches, type SearchComponents } from '../../../src/replication/searches.ts'
import { randomCid } from '../../compliance/router.ts'
import { ReplicaBench, policyOf } from '../../support/replica-bench.ts'
import { until } from '../../support/until.ts'

const DAG_CBOR = 0x71
const model = (): string => randomCid(DAG_CBOR).toString()

/** Searches of a router that finds these, once it is let go. */
function searchesOf (providers: Provider[], letGo = Promise.resolve()): { searches: Searches, found: string[][], learnt: string[] } {
  const found: string[][] = []
  const learnt: string[] = []
  const findProviders = async function * (): AsyncGenerator<Provider> {
    await letGo
    yield * providers
  }
  const network = { getPeers: () => [{}], addEventListener: () => undefined, removeEventListener: () => undefined } as unknown as SearchComponents['network']
  const components = { network, router: { findProviders } as unknown as SearchComponents['router'], clock: systemClock, logger: silentLogger, learn: async (provider: Provider) => { learnt.push(provider.peerId); await Promise.resolve() } }
  return { searches: new Searches(components, (_model, peerIds) => { found.push(peerIds) }), found, learnt }
}

const named = (by: string | undefined, names: string, count: number): Provider[] => Array.from({ length: count }, (_, i) => ({ peerId: `${names} ${i}`, multiaddrs: [], ...by === undefined ? {} : { namedBy: by } }))

describe('what a search tells', () => {
  it('is not filled by who answers first', async () => {
    const { searches, found, learnt } = searchesOf([...named(undefined, 'told', 2), ...named('liar', 'fake', 128), ...named('a', 'real', 3), ...named('b', 'other', 100)])
    searches.find(model())
    await until('it is found', () => found.length > 0)
    const [ids = []] = found
    assert.equal(ids.length, REPLICA_FOUND_MAX)
    const count = (of: string): number => ids.filter(id => id.startsWith(of)).length
    assert.deepEqual([count('told'), count('real'), count('fake'), count('other')], [2, 3, 30, 29])
    assert.deepEqual(learnt, ids, 'addresses of those alone')
    await searches.stop()
  })

  it('is all that was found where that is little', async () => {
    const { searches, found } = searchesOf(named('a', 'real', 3))
    searches.find(model())
    await until('it is found', () => found.length > 0)
    assert.deepEqual(found, [['real 0', 'real 1', 'real 2']])
    await searches.stop()
  })
})

describe('searches beyond the bound', () => {
  it('are refused, and taken when others are over', async () => {
    let letGo = (): void => undefined
    const { searches, found } = searchesOf([], new Promise(resolve => { letGo = resolve }))
    const first = model()
    assert.equal(searches.find(first), true)
    for (let i = 1; i < REPLICA_SEARCHES_WAITING_MAX; i++) assert.equal(searches.find(model()), true)
    const last = model()
    assert.equal(searches.find(last), false)
    assert.equal(searches.find(first), true, 'it is under way')
    letGo()
    await until('all are over', () => found.length === REPLICA_SEARCHES_WAITING_MAX)
    assert.equal(searches.find(last), true)
    await searches.stop()
    assert.equal(searches.find(last), false)
  })

  it('are asked for again soon, and those that were made not before their time', () => {
    const models = Array.from({ length: 50 }, (_, i) => `m${i}`)
    const bench = new ReplicaBench({ shards: 1, models, policies: models.map(each => policyOf({ model: each })), kept: true })
    const searched = new Map<string, number>()
    let places = 0
    bench.find = each => {
      if (places === 0) return false
      places--
      searched.set(each, (searched.get(each) ?? 0) + 1)
      bench.replicator.found(each, [], bench.now)
      return true
    }
    // Somebody has each of them, so that they are searched for once in ten minutes.
    bench.says('holder', models.map(each => ({ model: each, committed: bench.all })))
    bench.run(300, () => { places = 1 })
    assert.deepEqual([searched.size, Math.max(...searched.values())], [50, 1])
  })
})
