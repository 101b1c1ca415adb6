import type { Command } from 'commander'
import { parseRepoName, showRepoName, type RepoName } from '../../model/repo-name.ts'
import { action } from '../context.ts'
import { ago, table } from '../format.ts'
import { MODEL, namedModel } from '../named-model.ts'

export function addLink (program: Command): void {
  program.command('link')
    .description('let a repository name stand for a model, for Hugging Face clients of this node')
    .argument('<name>', 'ORG/NAME or ORG/NAME@REVISION (default revision: main)')
    .argument('<model>', MODEL)
    .action(action(async (context, name: string, model: string) => {
      const to = parseRepoName(name)
      const { cid } = await namedModel(context, model)
      const link = await context.client.link(to, cid)
      context.print(link, `linked ${showRepoName(link)} to ${link.cid}`)
    }))
}

export function addLinks (program: Command): void {
  program.command('links')
    .description('list the repository names that stand for models here')
    .action(action(async context => {
      const links = await context.client.links()
      const now = Date.now()
      context.print(links, links.length === 0
        ? 'no links yet; make one with shoal link ORG/NAME CID'
        : table(['NAME', 'REVISION', 'CID', 'LINKED'], links.map(({ repo, revision, cid, linkedAt }) => [repo, revision, cid, ago(linkedAt, now)])))
    }))
}

/** What came from an upstream is linked by its commit, too, which is no name that a user could give. */
function linkName (text: string): RepoName {
  const [, repo, commit] = /^([^@]+)@([0-9a-f]{40})$/.exec(text) ?? []
  return repo === undefined || commit === undefined ? parseRepoName(text) : { repo, revision: commit }
}

export function addUnlink (program: Command): void {
  program.command('unlink')
    .description('take a repository name away; the model stays')
    .argument('<name>', 'ORG/NAME or ORG/NAME@REVISION (default revision: main)')
    .action(action(async (context, name: string) => {
      const link = await context.client.unlink(linkName(name))
      context.print(link, `unlinked ${showRepoName(link)}, which stood for ${link.cid}`)
    }))
}
