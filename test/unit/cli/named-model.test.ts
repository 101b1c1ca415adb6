import assert from 'node:assert/strict'
import { ApiClient } from '../../../src/api/client.ts'
import { namedModel } from '../../../src/cli/named-model.ts'
import type { ModelLink } from '../../../src/node/types.ts'

const CID = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'
const OTHER = 'bafyr4ihcsvbyvd54yonr3mzc4tklpcbqd5ttrxqbnvigmoy2kbgcjmbq2u'
const COMMIT = '0123456789abcdef0123456789abcdef01234567'

describe('cli: names of models', () => {
  let asked = 0
  class Client extends ApiClient {
    override links = async (): Promise<ModelLink[]> => {
      asked++
      return [['org/name', 'main', CID], ['org/name', 'v2', OTHER], ['name', 'main', OTHER], ['org/name', COMMIT, CID]]
        .map(([repo = '', revision = '', cid = '']) => ({ repo, revision, cid, linkedAt: 0 }))
    }
  }
  const context = { client: new Client({ socketPath: '/nowhere/api.sock' }), signal: new AbortController().signal }
  const named = async (text: string): Promise<unknown> => await namedModel(context, text)
  beforeEach(() => { asked = 0 })

  it('are looked up as they are linked, with main for no revision', async () => {
    assert.deepEqual(await named('org/name'), { cid: CID, name: { repo: 'org/name', revision: 'main' } })
    assert.deepEqual(await named('org/name@main'), { cid: CID, name: { repo: 'org/name', revision: 'main' } })
    assert.deepEqual(await named('org/name@v2'), { cid: OTHER, name: { repo: 'org/name', revision: 'v2' } })
    assert.deepEqual(await named(`org/name@${COMMIT}`), { cid: CID, name: { repo: 'org/name', revision: COMMIT } })
    assert.deepEqual(await named('name'), { cid: OTHER, name: { repo: 'name', revision: 'main' } })
  })

  it('are not asked for where a CID is given', async () => {
    for (const text of [CID, `cid/${CID}`, `cid/${CID}@main`]) assert.deepEqual(await named(text), { cid: CID, name: undefined })
    assert.equal(asked, 0)
    await assert.rejects(named(`cid/${CID}@v2`), { name: 'UsageError' })
  })

  it('that nothing is linked as are told with what makes a link, also one as long as nobody types', async () => {
    for (const text of ['org/other', 'org/name@v3', 'name@v2', `x/${'y'.repeat(10_000)}`]) {
      await assert.rejects(named(text), ({ name, message }: Error) => name === 'LinkNotFoundError' && message.length < 400 && /^nothing is linked as "[^"]+" here; see what is with: shoal links; link it with: shoal link /.test(message))
    }
    for (const text of ['nonsense', CID.slice(0, -20), 'x'.repeat(10_000)]) {
      await assert.rejects(named(text), ({ name, message }: Error) => name === 'InvalidCidError' && message.length < 400 && /is no model CID, and nothing is linked as that here; .*shoal links.*shoal link NAME CID$/.test(message))
    }
  })
})
