"""The messages between the views of an explorer and its kernel."""

import pytest

from derm_hash.explorers.frontend import module

pytestmark = pytest.mark.browser
# Two views of one explorer, whose kernel sends each answer to both: count their questions.
TWO_VIEWS = """async () => {
    const asked = [], listeners = [], codes = known => [new Float32Array(known.length)];
    const start = [[{kind: "query", about: {}, serial: 1, known: [0], rest: [1, 2, 3, 4, 5, 6]},
        [codes([]), codes([]), codes([0])].flat()]];
    const values = {about: {models: [{bits: 1}]}, start};
    const model = {get: name => values[name], on: (_, listen) => listeners.push(listen),
        send({kind, serial, rest = []}) {
            asked.push(kind);
            const [known, later] = [rest.slice(0, 1), rest.slice(1)];
            const answer = kind === "more" ? {kind: "codes", serial, known, rest: later}
                : {kind, serial, familiar: null};
            setTimeout(() => listeners.forEach(listen => listen(answer, codes(known))));
        }};
    const queries = [];
    await Promise.all([0, 1].map(view => new Promise(done => connect(model).start({
        onquery: query => { queries[view] = query; }, oncodes() {}, onfamiliar: done}))));
    await new Promise(done => setTimeout(done, 50));
    return [asked.filter(kind => kind === "more").length,
        ...queries.map(({known}) => known.reduce((a, b) => a + b))];
}"""


def test_a_second_view_asks_no_question_again_and_again(browser):
    page = browser.new_page()
    page.set_content(f'<script type="module">{module()}\nwindow.connect = connect;</script>')
    page.wait_for_function("() => Boolean(window.connect)")
    questions, *known = page.evaluate(TWO_VIEWS)
    assert known == [7, 7]
    assert questions <= 2 * 6  # each view asks once for each part
    page.close()
