import assert from 'node:assert/strict'
import { Repos } from '../../../src/hf/repos.ts'
import { commitOf } from '../../../src/hf/identity.ts'
import { hashMetadata } from '../../../src/model/index.ts'
import type { ModelLink } from '../../../src/node/types.ts'

const cidOf = (name: string): string => hashMetadata(Buffer.from(name)).toString()
const NOBODY = { token: undefined }

describe('hf: repositories', () => {
  it('a commit that was given out is known after its name moved on, however many models are asked for by their CIDs', async () => {
    const link: ModelLink = { repo: 'acme/tiny', revision: 'main', cid: cidOf('first'), linkedAt: 0 }
    const repos = new Repos({
      links: repo => repo === undefined || repo === link.repo ? [link] : [],
      describe: async () => { throw new Error('nobody asks for that') },
      origin: undefined
    })
    const { commit } = await repos.resolve('acme/tiny', 'main', NOBODY)
    link.cid = cidOf('second')
    for (let i = 0; i < 10_000; i++) {
      const cid = cidOf(String(i))
      const found = await repos.resolve(`cid/${cid}`, undefined, NOBODY)
      if (i === 0) assert.deepEqual(await repos.resolve(`cid/${cid}`, commitOf(cid), NOBODY), found)
    }
    assert.deepEqual((await repos.resolve('acme/tiny', commit, NOBODY)).from, { kind: 'model', cid: cidOf('first') })
  })
})
